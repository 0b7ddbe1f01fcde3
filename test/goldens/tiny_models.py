"""Tiny Flux components with random weights, for the golden scripts.

Weights are drawn from one seeded generator, scaled so that every layer matters, rounded to bfloat16 and stored so;
the goldens are computed in float32 from the rounded values.
"""
import json
import os
import shutil

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "models", "demo")

AXES = {16: (4, 6, 6), 32: (8, 12, 12), 64: (16, 24, 24)}


def randomize(model, seed):
    """Refill every parameter of `model` in state-dict order and round it to bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    done = set()
    for name, weight in model.named_parameters():
        if weight.data_ptr() in done:
            continue
        done.add(weight.data_ptr())
        values = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(rescale(name, values).bfloat16().float())
    return model.eval()


def rescale(name, values):
    """Standard normal values -> values fit for the parameter called `name`."""
    if values.ndim == 1:
        is_scale = name.endswith("weight")
        return 1 + 0.2 * values if is_scale else 0.1 * values
    if "embedding" in name or "shared" in name or "relative_attention_bias" in name:
        return 0.7 * values
    return values / values[0].numel() ** 0.5


def transformer(seed=1, double=1, single=1, heads=2, head_dim=16, latent_channels=4, joint=32, pooled=32,
                guidance=False, out_channels=None, in_channels=None):
    return randomize(FluxTransformer2DModel(
        in_channels=in_channels or latent_channels * 4, out_channels=out_channels, num_layers=double,
        num_single_layers=single, attention_head_dim=head_dim, num_attention_heads=heads, joint_attention_dim=joint,
        pooled_projection_dim=pooled, guidance_embeds=guidance, axes_dims_rope=AXES[head_dim]), seed)


def t5(seed=2, width=32, layers=2, heads=4, head_dim=8, hidden=48, feed_forward="gated-gelu", buckets=32,
       max_distance=128):
    return randomize(T5EncoderModel(T5Config(
        vocab_size=384, d_model=width, d_kv=head_dim, d_ff=hidden, num_layers=layers, num_heads=heads,
        feed_forward_proj=feed_forward, relative_attention_num_buckets=buckets,
        relative_attention_max_distance=max_distance, dropout_rate=0.0, tie_word_embeddings=False,
        is_encoder_decoder=False, use_cache=False)), seed)


def clip(seed=3, width=32, layers=2, heads=4, hidden=64, activation="quick_gelu", eos=585):
    return randomize(CLIPTextModel(CLIPTextConfig(
        vocab_size=586, hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, max_position_embeddings=77, projection_dim=width, hidden_act=activation,
        bos_token_id=0 if eos == 2 else 584, eos_token_id=eos, pad_token_id=1 if eos == 2 else 585)), seed)


def vae(seed=4, widths=(8, 16), layers=1, latent_channels=4, groups=4, quant_convs=False, scaling=0.9, shift=0.1,
        mid_attention=True):
    return randomize(AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths), layers_per_block=layers, latent_channels=latent_channels,
        norm_num_groups=groups, sample_size=32, scaling_factor=scaling, shift_factor=shift,
        use_quant_conv=quant_convs, use_post_quant_conv=quant_convs, mid_block_add_attention=mid_attention), seed)


def schnell_scheduler(**options):
    return FlowMatchEulerDiscreteScheduler(**{"shift": 1.0, **options})


def dev_scheduler(**options):
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, "use_dynamic_shifting": True, **options})


def pipeline(transformer, t5, clip, vae, scheduler):
    """A FluxPipeline with the demo model's tokenizers."""
    return FluxPipeline(
        scheduler=scheduler, vae=vae, text_encoder=clip, text_encoder_2=t5, transformer=transformer,
        tokenizer=CLIPTokenizer.from_pretrained(f"{DEMO}/tokenizer"),
        tokenizer_2=T5TokenizerFast.from_pretrained(f"{DEMO}/tokenizer_2"))


def save(pipe, folder):
    """Save as a Diffusers checkpoint in bfloat16, with the demo model's small tokenizer files, then go back to float32."""
    shutil.rmtree(folder, ignore_errors=True)
    pipe.to(torch.bfloat16).save_pretrained(folder)
    for part in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(f"{folder}/{part}")
        shutil.copytree(f"{DEMO}/{part}", f"{folder}/{part}")
    index = json.load(open(f"{folder}/model_index.json"))
    index["tokenizer"], index["tokenizer_2"] = ["transformers", "CLIPTokenizer"], ["transformers", "T5TokenizerFast"]
    with open(f"{folder}/model_index.json", "w") as file:
        json.dump(index, file, indent=2, sort_keys=True)
    return pipe.to(torch.float32)
