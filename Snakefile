# Measure attention on these CPUs: config.yaml says what, profiles/ say how, results/ receives it.
#
#   snakemake --profile profiles/local                                  everything
#   snakemake --profile profiles/local --configfile experiments/X.yaml  another experiment, instead of config.yaml
#   snakemake --profile profiles/local --report results/report.html     the report of what was measured

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/environment.smk"
include: "workflow/rules/compile.smk"
include: "workflow/rules/validate.smk"
include: "workflow/rules/stream.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/provenance.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/report.smk"


onstart:
    print(f"{CAMPAIGN.name}: {PLAN.totals()}", file=sys.stderr)
    take_over_cluster()


# Every record and every result by name, not only the last step: what is deleted or set aside is made again.
rule all:
    default_target: True
    input:
        rules.plan_campaign.output,
        rules.aggregate_records.input.records,
        rules.aggregate_records.input.ceilings,
        rules.trace_provenance.input.figures,
        rules.trace_provenance.input.tables,
        rules.trace_provenance.output,
        rules.compare.input,
