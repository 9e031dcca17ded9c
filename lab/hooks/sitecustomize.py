"""Python runs this at the start of every process of a stack whose Python path begins with this folder."""

import seeded

seeded.install()
