"""``python -m streaming_attention``: the command line without an installed script."""

import sys

from streaming_attention.campaign.cli import main

if __name__ == "__main__":
    sys.exit(main())
