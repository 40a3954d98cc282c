"""Where a peer's newest version is wrong by itself, tests that compare with it say so by version."""

import pytest
import transformers
from packaging.version import Version

# transformers 5.24 hands prompts to its models as `cache`. PEFT 0.21 looks for `past_key_values` while it generates, so
# its answers are those of the bare model. When PEFT is mended these tests fail, and the mark can go.
peft_generates = pytest.mark.xfail(
    Version(transformers.__version__) >= Version("5.24"),
    reason=f"PEFT's generation forgets its prompts with transformers {transformers.__version__}",
    strict=True,
)
