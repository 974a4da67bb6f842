# What the campaign will measure and what it will cost, before anything runs.


# First of all, and nothing depends on it: it changes with every added point, and no old point must run again for that.
rule plan_campaign:
    output:
        table=PLAN_TABLE,
    log:
        f"{RESULTS}/logs/plan_campaign/plan.log",
    priority: 100
    localrule: True
    conda:
        "../../envs/measure.yaml"
    params:
        table=lambda wc: PLAN.to_csv(),
    script:
        "../scripts/write_plan.py"


rule plan:
    input:
        table=rules.plan_campaign.output.table,
    log:
        f"{RESULTS}/logs/plan/plan.log",
    localrule: True
    conda:
        "../../envs/measure.yaml"
    params:
        text=lambda wc: PLAN.to_text(),
    shell:
        "printf '%s\n' {params.text:q} | tee {log:q}"
