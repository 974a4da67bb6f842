# Every method is compiled once into the JIT cache, so that no measurement pays for it.


rule compile_method:
    input:
        sources=lambda wc: sources_of(wc.method),
    output:
        record=f"{RESULTS}/compile/{{method}}-{{dtype}}.json",
    log:
        f"{RESULTS}/logs/compile_method/{{method}}-{{dtype}}.log",
    conda:
        "../../envs/measure.yaml"
    resources:
        **PLACE,
        exclusive=1,
        cpus_per_task=2,
    params:
        spec=lambda wc: as_json(specs.compile_spec(CAMPAIGN, wc.method, wc.dtype)),
        kernels=lambda wc: digest_of(wc.method),
    shell:
        "python -m streaming_attention compile" " --spec {params.spec:q} --output {output.record:q} --log {log:q}"
