# Where every number of the report comes from, and the walk back.


rule trace_provenance:
    input:
        figures=expand(f"{RESULTS}/figures/{{figure}}.{{kind}}", figure=FIGURES, kind=["svg", "csv"]),
        tables=expand(f"{RESULTS}/tables/{{table}}.{{kind}}", table=TABLES, kind=["html", "csv"]),
        aggregated=rules.aggregate_records.output,
        code=modules_of("campaign.provenance"),
    output:
        trace=report(
            f"{RESULTS}/provenance.json",
            caption="../report/provenance.rst",
            category="Data",
            subcategory="Provenance",
            labels={"table": "Digests of figures, rows, records and logs"},
        ),
    log:
        f"{RESULTS}/logs/trace_provenance/provenance.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    script:
        "../scripts/trace_provenance.py"


# Always runs when asked for: it looks at what is on disk now.
rule verify:
    input:
        trace=rules.trace_provenance.output.trace,
    log:
        f"{RESULTS}/logs/verify/verify.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    script:
        "../scripts/verify_provenance.py"
