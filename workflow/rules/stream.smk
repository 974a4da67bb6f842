# What a layout's memory, cores and network can give at most: STREAM, a large matrix product and messages, all ranks at once.


rule measure_ceilings:
    input:
        code=ceiling_modules,
    output:
        record=f"{RESULTS}/ceilings/{{layout}}.json",
    log:
        f"{RESULTS}/logs/measure_ceilings/{{layout}}.log",
    conda:
        "../../envs/measure.yaml"
    threads: lambda wc: LAYOUTS[wc.layout].workers
    resources:
        **job_resources(lambda wc: LAYOUTS[wc.layout], bytes_of=half_a_node),
        exclusive=1,
        launcher=LAUNCHER,
    params:
        spec=lambda wc: as_json(specs.ceilings_spec(CAMPAIGN, LAYOUTS[wc.layout])),
    shell:
        "python -m streaming_attention ceilings"
        " --spec {params.spec:q} --output {output.record:q} --log {log:q} --launcher {resources.launcher:q}"
        " --limit {resources.limit}"
