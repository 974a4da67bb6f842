# The machine that the campaign runs on.


rule probe_environment:
    output:
        record=f"{RESULTS}/environment.json",
    log:
        f"{RESULTS}/logs/probe_environment/environment.log",
    conda:
        "../../envs/measure.yaml"
    resources:
        **PLACE,
        exclusive=1,
    params:
        spec=lambda wc: as_json(specs.environment_spec(CAMPAIGN)),
    shell:
        "python -m streaming_attention environment" " --spec {params.spec:q} --output {output.record:q} --log {log:q}"
