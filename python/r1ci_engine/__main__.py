"""`python -m r1ci_engine`: the same as the command `r1ci-engine`."""

import sys

from r1ci_engine.cli import main

sys.exit(main())
