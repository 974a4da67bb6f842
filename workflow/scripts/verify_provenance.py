"""Walk every figure back to its records and logs; a gap is an error, each on a line of its own."""

import sys
from pathlib import Path

from streaming_attention.campaign.provenance import verify

problems = verify(Path(snakemake.input.trace).parent)
Path(snakemake.log[0]).write_text("\n".join(problems or ["every figure leads back to its records and logs"]) + "\n")
print(Path(snakemake.log[0]).read_text(), end="", file=sys.stderr)
sys.exit(bool(problems))
