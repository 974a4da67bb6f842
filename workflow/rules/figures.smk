# The figures: a rule each, draw_NAME, and a module each in the package. Beside every figure lie the rows that it shows.

TOPICS = {
    "runtime": "Time",
    "speedup": "Time",
    "threads_ranks": "Scaling",
    "scaling": "Scaling",
    "strong_scaling": "Ranks",
    "weak_scaling": "Ranks",
    "timeline": "Ranks",
    "predictions": "Ranks",
    "extrapolation": "Ranks",
    "block": "Scaling",
    "bandwidth": "Limits",
    "roofline": "Limits",
    "memory": "Memory",
    "correctness": "Correctness",
}


for figure in FIGURES:

    rule:
        name:
            f"draw_{figure}"
        input:
            measurements=rules.aggregate_records.output.measurements,
            summary=rules.aggregate_records.output.summary,
            ceilings=rules.aggregate_records.output.ceilings,
            code=modules_of(f"campaign.figures.{figure}"),
        output:
            svg=report(
                f"{RESULTS}/figures/{figure}.svg",
                caption=f"../report/{figure}.rst",
                category="Figures",
                subcategory=TOPICS[figure],
                labels={"figure": FIGURES[figure]},
            ),
            csv=report(
                f"{RESULTS}/figures/{figure}.csv",
                caption=f"../report/{figure}.rst",
                category="Data",
                subcategory="Figures",
                labels={"figure": FIGURES[figure]},
            ),
        log:
            f"{RESULTS}/logs/draw_{figure}/{figure}.log",
        localrule: True
        conda:
            "../../envs/report.yaml"
        params:
            figure=figure,
            options={"published": CAMPAIGN.report["published"]},
        script:
            "../scripts/draw_figure.py"
