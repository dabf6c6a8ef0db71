"""`python -m panosc_analysis` is `panosc-analysis`."""

import sys

from panosc_analysis.cli import main

sys.exit(main())
