"""A small Llama with random weights: the same logits, gradients and tokens as with transformers' own attention."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")
transformers = pytest.importorskip("transformers", reason="needs the transformers library")

from streaming_attention.torch import register  # noqa: E402
from streaming_attention.torch.transformers import attend  # noqa: E402


@pytest.fixture(scope="module")
def models():
    """The same weights with `eager` attention and with ours."""
    register()
    config = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    made = []
    for implementation in ("eager", "streaming_attention"):
        torch.manual_seed(11)
        llama = transformers.LlamaConfig(**config, attn_implementation=implementation)
        made.append(transformers.LlamaForCausalLM(llama).eval())
    assert made[1].config._attn_implementation == "streaming_attention"
    return made


def padding(side: str) -> torch.Tensor:
    mask = torch.ones(3, 20, dtype=torch.long)
    mask[1, 13:] = 0
    mask[2, 1:] = 0
    return mask if side == "right" else mask.flip(1)


@pytest.mark.parametrize("mask", [None, padding("right"), padding("left")], ids=["whole", "right", "left"])
def test_logits_and_gradients(models, mask):
    ids = torch.randint(97, (3, 20), generator=torch.Generator().manual_seed(2))
    real = torch.ones_like(ids) if mask is None else mask
    results = []
    for model in models:
        model.zero_grad()
        logits = model(ids, attention_mask=mask).logits[real.bool()]
        logits.square().mean().backward()
        results.append((logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_models_in_16_bits(models, dtype):
    """As near to the model in float32 as with transformers' own attention, in logits and in a gradient."""
    ids = torch.randint(97, (3, 20), generator=torch.Generator().manual_seed(2))
    results = []
    for model in (models[0], *(copy.deepcopy(model).to(dtype) for model in models)):
        model.zero_grad()
        logits = model(ids).logits.float()
        logits.square().mean().backward()
        results.append((logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad.float()))
    for exact, theirs, ours in zip(*results, strict=True):
        assert (ours - exact).norm() <= 2 * (theirs - exact).norm()


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generated_tokens(models, cache):
    ids = torch.randint(97, (2, 9), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "cache_implementation": cache}
    theirs, ours = (model.generate(ids, attention_mask=mask, **options) for model in models)
    assert torch.equal(theirs, ours)


def test_a_sliding_window():
    register()
    config = transformers.MistralConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=5,
    )  # fmt: skip
    logits = []
    for implementation in ("eager", "streaming_attention"):
        torch.manual_seed(3)
        config._attn_implementation = implementation
        model = transformers.MistralForCausalLM(config).eval()
        logits.append(model(torch.arange(30)[None]).logits)
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-5)


def test_options_without_support_are_refused():
    q = torch.zeros(1, 2, 4, 16)
    with pytest.raises(ValueError, match="softcap: not supported by streaming_attention"):
        attend(torch.nn.Module(), q, q, q, None, softcap=30.0)
