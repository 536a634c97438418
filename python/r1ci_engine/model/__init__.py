"""The model: one hand-written decoder, Hugging Face folders, tokenizer, chat template.

Importing this room asks MKL for strict conditional reproducibility, unless the user has set the
variable. It must happen before the process's first matrix product, so it cannot be an option; it
costs nothing measurable (`exact.py`).
"""

import os

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
