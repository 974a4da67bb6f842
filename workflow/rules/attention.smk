# A point is one job and one record: every method that fits its layout, interleaved.
# What makes a point run again: its own description (params), and the kernels of its methods. The gate's verdicts
# follow from the same sources. The plan is only looked at for the line of progress: it changes with every added point.


rule measure_attention:
    input:
        sources=lambda wc: sources_of(*point_methods(wc)),
        gate=point_gates,
    output:
        record=f"{RESULTS}/records/{{point}}.json",
    log:
        f"{RESULTS}/logs/measure_attention/{{point}}.log",
    conda:
        "../../envs/measure.yaml"
    threads: lambda wc: POINTS[wc.point].layout.workers
    resources:
        **job_resources(lambda wc: POINTS[wc.point].layout, lambda wc: SECONDS[wc.point], point_bytes),
        exclusive=1,
        launcher=LAUNCHER,
    params:
        spec=lambda wc: as_json(point_spec(POINTS[wc.point], CAMPAIGN)),
        kernels=lambda wc: digest_of(*point_methods(wc)),
        plan=PLAN_TABLE,
    shell:
        "python -m streaming_attention measure"
        " --spec {params.spec:q} --output {output.record:q} --log {log:q} --launcher {resources.launcher:q}"
        " --gate {input.gate:q} --plan {params.plan:q} --limit {resources.limit}"
