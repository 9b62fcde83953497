"""python -m layerwise.compare"""

from layerwise.compare.command import main

raise SystemExit(main())
