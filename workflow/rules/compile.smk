# Every method is compiled once into the JIT cache, so that no measurement pays for it; Triton's kernels for GPUs as well.


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


# Made again when a kernel changes and when Triton comes or goes; without Triton it says so for every kernel.
rule compile_for_gpus:
    input:
        code=modules_of("campaign.gpu"),
        kernels=sorted(os.path.relpath(path) for path in Path(KERNELS).glob("streaming_attention/triton/kernels/*.py")),
    output:
        found=f"{RESULTS}/gpu.json",
    log:
        f"{RESULTS}/logs/compile_for_gpus/gpu.log",
    conda:
        "../../envs/measure.yaml"
    resources:
        **PLACE,
        exclusive=1,
    params:
        triton=triton_version(),
    shell:
        "python -m streaming_attention gpu --output {output.found:q} > {log:q} 2>&1"
