"""The commands start without PyTorch's compiler, and whoever wants it still gets it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from tests.conftest import ROOT, run

COMPILER = "torch._dynamo.eval_frame"  # a part of it that nothing stands in for


def test_a_prediction_imports_no_compiler(finished: Path) -> None:
    clip = next((finished / "data/demo/videos").rglob("v_*"))
    told = run("moclip", "predict", clip, cwd=finished, PYTHONPROFILEIMPORTTIME="1").stderr
    assert all(f" {name}\n" in told for name in ("timm", "torchvision", "transformers.models.clip.configuration_clip"))
    assert f" {COMPILER}\n" not in told


def compiled(program: str) -> None:
    """Run a program in a process where what the commands import has been imported."""
    first = f"import sys, stages, moclip.clip, moclip.mv_tsn, torch\nassert {COMPILER!r} not in sys.modules"
    run("python", "-c", "\n".join([first, dedent(program), f"assert {COMPILER!r} in sys.modules"]), cwd=ROOT)


def test_what_the_stand_in_lacks_is_the_compilers() -> None:
    compiled("""
        import torch._dynamo.config as early
        early.recompile_limit = 3
        from torch._dynamo import config
        assert config is not early and config.recompile_limit == early.recompile_limit == 3
        double = torch.compile(lambda x: 2 * x, backend="eager")
        assert double(torch.ones(2)).tolist() == [2, 2]
        kept = torch._dynamo.disable(lambda x: x)
        assert hasattr(kept, "_torchdynamo_disable")
    """)


def test_what_was_taken_from_the_stand_in_works() -> None:
    compiled("""
        from transformers import masking_utils
        with masking_utils.TransformGetItemToIndex():
            assert torch.arange(3)[torch.tensor(1)] == 1
        from torchvision.ops import roi_align
        picture, box = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]])
        assert roi_align(picture, box, (2, 2), aligned=True).shape == (1, 1, 2, 2)
    """)
