"""Write a Flux checkpoint folder with random weights, for benchmarks at sizes between the demo model and FLUX.1.

usage: make_random_flux.py FOLDER [--heads 8] [--head-dim 128] [--double 4] [--single 8] [--joint 512] [--pooled 256]
                           [--t5-layers 4] [--clip-layers 4] [--vae-widths 32,64,128,128] [--guidance]
                           [--shard-size 10GB] [--seed 0]

The defaults give a transformer of width 1024 (about 300 M parameters). The tokenizers are the demo model's.
"""
import argparse
import json
import os
import shutil

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "demo")
AXES = {16: (4, 6, 6), 32: (8, 12, 12), 64: (16, 24, 24), 128: (16, 56, 56)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    for name, default in (("heads", 8), ("head-dim", 128), ("double", 4), ("single", 8), ("joint", 512),
                          ("pooled", 256), ("t5-layers", 4), ("clip-layers", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vae-widths", default="32,64,128,128")
    parser.add_argument("--guidance", action="store_true")
    parser.add_argument("--shard-size", default="10GB")
    return parser.parse_args()


def make_transformer(args):
    return FluxTransformer2DModel(
        in_channels=64, num_layers=args.double, num_single_layers=args.single, attention_head_dim=args.head_dim,
        num_attention_heads=args.heads, joint_attention_dim=args.joint, pooled_projection_dim=args.pooled,
        guidance_embeds=args.guidance, axes_dims_rope=AXES[args.head_dim])


def make_t5(args):
    return T5EncoderModel(T5Config(
        vocab_size=384, d_model=args.joint, d_kv=64, d_ff=args.joint * 5 // 2, num_layers=args.t5_layers,
        num_heads=args.joint // 64, feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False,
        is_encoder_decoder=False, use_cache=False))


def make_clip(args):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=586, hidden_size=args.pooled, intermediate_size=args.pooled * 4, num_hidden_layers=args.clip_layers,
        num_attention_heads=args.pooled // 64, max_position_embeddings=77, projection_dim=args.pooled,
        hidden_act="quick_gelu", bos_token_id=584, eos_token_id=585, pad_token_id=585))


def make_vae(args):
    widths = [int(width) for width in args.vae_widths.split(",")]
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths, layers_per_block=2, latent_channels=16, norm_num_groups=min(32, widths[0]),
        sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    parts = {"transformer": make_transformer(args), "text_encoder": make_clip(args), "text_encoder_2": make_t5(args),
             "vae": make_vae(args)}
    for name, model in parts.items():
        model.to(torch.bfloat16).save_pretrained(f"{args.folder}/{name}", max_shard_size=args.shard_size)
        print(name, f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
    shift = dict(shift=3.0, use_dynamic_shifting=True) if args.guidance else dict(shift=1.0)
    FlowMatchEulerDiscreteScheduler(**shift).save_pretrained(f"{args.folder}/scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(f"{DEMO}/{name}", f"{args.folder}/{name}", dirs_exist_ok=True)
    with open(f"{DEMO}/model_index.json") as source, open(f"{args.folder}/model_index.json", "w") as target:
        json.dump(json.load(source), target, indent=2)


if __name__ == "__main__":
    main()
