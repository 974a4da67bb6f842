"""Walk every figure back to its records and logs; a gap is an error, each on a line of its own."""

import sys
from pathlib import Path

from streaming_attention.campaign.provenance import verify

problems = verify(Path(snakemake.input.trace).parent)
text = "\n".join(problems or ["every figure leads back to its records and logs"])
Path(snakemake.log[0]).write_text(f"{text}\n")
print(text, file=sys.stderr)
sys.exit(bool(problems))
