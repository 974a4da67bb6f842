# What the report says beside its results: snakemake --report results/report.html (or .zip).
# Its texts see the campaign as `snakemake.config`; free text of the user's is escaped there, since captions are markup.


report: "../report/workflow.rst"


config.update(
    campaign=CAMPAIGN.name,
    folder=RESULTS,
    records=len(POINTS),
    ceilings=len(LAYOUTS),
    machine=str(CAMPAIGN.machine),
    title=as_rst(CAMPAIGN.report["title"]),
    description=as_rst(CAMPAIGN.report["description"]),
)
