# This campaign against earlier ones, or other machines': joined by point, judged by intervals.

COMPARED = {entry["name"]: entry["measurements"] for entry in CAMPAIGN.report["compare"]}


rule compare_campaigns:
    input:
        base=lambda wc: COMPARED[wc.comparison],
        other=rules.aggregate_records.output.measurements,
        code=modules_of("campaign.compare"),
    output:
        page=report(
            f"{RESULTS}/compare/{{comparison}}.html",
            caption="../report/compare.rst",
            category="Comparison",
            labels={"compared with": "{comparison}", "form": "table"},
        ),
        svg=report(
            f"{RESULTS}/compare/{{comparison}}.svg",
            caption="../report/compare.rst",
            category="Comparison",
            labels={"compared with": "{comparison}", "form": "figure"},
        ),
        rows=report(
            f"{RESULTS}/compare/{{comparison}}.csv",
            caption="../report/compare.rst",
            category="Data",
            subcategory="Comparison",
            labels={"compared with": "{comparison}"},
        ),
    log:
        f"{RESULTS}/logs/compare_campaigns/{{comparison}}.log",
    wildcard_constraints:
        comparison="[A-Za-z0-9_-]+",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        names=lambda wc: [wc.comparison, CAMPAIGN.name],
        confidence=CAMPAIGN.protocol["confidence"],
    script:
        "../scripts/compare_campaigns.py"


rule compare:
    input:
        expand(rules.compare_campaigns.output, comparison=COMPARED),
