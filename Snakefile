# Measure attention on these CPUs: config.yaml says what, profiles/ say how, results/ receives it.
#
#   snakemake --profile profiles/local                                  everything
#   snakemake --profile profiles/local --configfile experiments/X.yaml  another experiment, instead of config.yaml
#   snakemake --profile profiles/local --report results/report.html     the report of what was measured

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/common.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/environment.smk"
include: "workflow/rules/compile.smk"
include: "workflow/rules/validate.smk"
include: "workflow/rules/stream.smk"
include: "workflow/rules/attention.smk"


rule all:
    default_target: True
    input:
        expand(rules.measure_attention.output.record, point=POINTS),
        expand(rules.measure_ceilings.output.record, layout=LAYOUTS),
        rules.probe_environment.output.record,
