# From records to tables.


rule aggregate_records:
    input:
        records=expand(rules.measure_attention.output.record, point=POINTS),
        ceilings=expand(rules.measure_ceilings.output.record, layout=LAYOUTS),
        code=modules_of("campaign.aggregate"),
    output:
        measurements=report(
            f"{RESULTS}/tables/measurements.csv",
            caption="../report/measurements.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "Every sample"},
        ),
        summary=report(
            f"{RESULTS}/tables/summary.csv",
            caption="../report/summary.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "Every record and method"},
        ),
        ceilings=report(
            f"{RESULTS}/tables/ceilings.csv",
            caption="../report/ceilings.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "Every ceiling"},
        ),
    log:
        f"{RESULTS}/logs/aggregate_records/tables.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    script:
        "../scripts/aggregate_records.py"


for table in TABLES:

    rule:
        name:
            f"tabulate_{table}"
        input:
            aggregated=rules.aggregate_records.output,
            plan=rules.plan_campaign.output.table,
            environment=rules.probe_environment.output.record,
            more=rules.compile_for_gpus.output if table == "gpu" else [],
            code=modules_of(f"campaign.tables.{table}"),
        output:
            page=report(
                f"{RESULTS}/tables/{table}.html",
                caption=f"../report/{table}.rst",
                category="Tables",
                labels={"table": TABLES[table]},
            ),
            rows=report(
                f"{RESULTS}/tables/{table}.csv",
                caption=f"../report/{table}.rst",
                category="Data",
                subcategory="Tables",
                labels={"table": TABLES[table]},
            ),
        log:
            f"{RESULTS}/logs/tabulate_{table}/{table}.log",
        localrule: True
        conda:
            "../../envs/report.yaml"
        params:
            table=table,
        script:
            "../scripts/write_table.py"
