# The gate: every method is judged against the oracle first. A wrong one is recorded as wrong and never timed.


rule validate_method:
    input:
        sources=lambda wc: sources_of(wc.method),
        compiled=rules.compile_method.output.record,
    output:
        record=f"{RESULTS}/gate/{{method}}-{{dtype}}-{{mode}}.json",
    log:
        f"{RESULTS}/logs/validate_method/{{method}}-{{dtype}}-{{mode}}.log",
    conda:
        "../../envs/measure.yaml"
    resources:
        **job_resources(lambda wc: Layout(**gate_spec(wc)["layout"])),
        exclusive=1,
        launcher=LAUNCHER,
    params:
        spec=lambda wc: as_json(gate_spec(wc)),
        kernels=lambda wc: digest_of(wc.method),
    shell:
        "python -m streaming_attention gate"
        " --spec {params.spec:q} --output {output.record:q} --log {log:q} --launcher {resources.launcher:q}"
        " --limit {resources.limit}"
