"""Phase 2: a small FluxTransformer2DModel and its T5 and CLIP encoders, trained together by flow matching.

usage: train_flow.py FOLDER MINUTES PICTURES [--batch 32] [--threads 2] [--lr 1e-3] [--muon-lr 2e-3] [--compile]
           [--two-shapes 0.6] [--more-two-shapes 0] [--noise-shift 0.8] [--reading 0.02] [--text-lr 2e-4]

Where `train_text.py` has left FOLDER/reading.pt, the encoders go on being asked what they read.
Continues from FOLDER/flow_state.pt when a run was broken off, else from the weights in FOLDER, else from nothing.
Writes the averaged (EMA) weights to FOLDER as float32; `publish.py` turns them into bfloat16.
"""
import argparse
import contextlib
import copy
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

import latents
import reading

TEXT_TOKENS = 32
CAPTION_DROP = 0.05  # share of empty captions, so that true guidance stays possible
EMA_HORIZON = 0.998
FLAT_SHARE = 0.25  # of the run at the full rate; then straight down to zero
CHECKPOINT_MINUTES = 8
# T5 does not scale its logits and starts its query matrices accordingly small: at the rate of the others they grow in
# a few steps until every word attends to one, and T5 never learns to read.
QUERY_RATE = 0.2
# Shapes are decided at high noise: most of the run leans that way, the last part is even.
SHIFTED_SHARE = 0.85

MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.36.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("minutes", type=float)
    parser.add_argument("pictures", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3, help="AdamW: embeddings, first and last layers, norms, biases")
    parser.add_argument("--muon-lr", type=float, default=2e-3, help="Muon: the matrices inside the blocks")
    parser.add_argument("--compile", action="store_true", help="torch.compile the transformer (needs a C++ compiler)")
    parser.add_argument("--two-shapes", type=float, default=0.6,
                        help="share of a batch with two shapes: harder than one, and 0.4 of the pictures")
    parser.add_argument("--more-two-shapes", type=int, default=0, help="pictures of two shapes drawn in addition")
    parser.add_argument("--noise-shift", type=float, default=0.8,
                        help="noise levels lie around sigmoid of it: what stands where is decided above 0.8")
    parser.add_argument("--text-lr", type=float, default=2e-4, help="AdamW: T5 and CLIP, which can read already")
    parser.add_argument("--reading", type=float, default=0.02,
                        help="weight of the loss of reading.py, where FOLDER has its heads")
    return parser.parse_args()


def build_models(clip_tokenizer):
    """The three networks, untrained; adaLN and the last layer start at zero."""
    t5 = T5EncoderModel(T5Config(
        vocab_size=384, d_model=256, d_kv=32, d_ff=512, num_layers=2, num_heads=8, feed_forward_proj="gated-gelu",
        dropout_rate=0.0, tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False))
    clip = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(clip_tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=128, hidden_act="quick_gelu",
        bos_token_id=clip_tokenizer.bos_token_id, eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.pad_token_id))
    transformer = FluxTransformer2DModel(
        in_channels=64, num_layers=2, num_single_layers=4, attention_head_dim=32, num_attention_heads=8,
        joint_attention_dim=256, pooled_projection_dim=128, guidance_embeds=False, axes_dims_rope=(8, 12, 12))
    for name, weight in transformer.named_parameters():
        if ("norm" in name and "linear" in name) or name.startswith("proj_out."):
            torch.nn.init.zeros_(weight)
    start_positions(t5)
    return torch.nn.ModuleDict({"transformer": transformer, "t5": t5, "clip": clip})


def position_table(t5):
    """T5's only sense of order: [buckets, heads]; 1 to 15 are keys before the query, 17 to 31 keys after it."""
    return t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight


@torch.no_grad()
def start_positions(t5):
    """
    Heads that look at the neighbours, at what came before and at what comes after. From T5's own small random
    biases the table does not leave "a bag of words" in thousands of steps: "a red star above a blue house" then
    means the same as "a blue house above a red star".
    """
    table = position_table(t5)
    table.zero_()
    for head, bucket in enumerate((1, 17, 2, 18)):
        table[bucket, head] = 4.0
    table[1:16, 4] = 3.0
    table[17:32, 5] = 3.0
    table[[1, 2, 3, 17, 18, 19], 6] = 2.0


def load_published(models, folder):
    """Copy the weights of a checkpoint folder into `models`."""
    sources = {
        "transformer": FluxTransformer2DModel.from_pretrained(f"{folder}/transformer"),
        "t5": T5EncoderModel.from_pretrained(f"{folder}/text_encoder_2"),
        "clip": CLIPTextModel.from_pretrained(f"{folder}/text_encoder"),
    }
    for name, source in sources.items():
        models[name].load_state_dict(source.float().state_dict())


def split_queries(t5):
    """T5's query matrices and its other weights."""
    named = list(t5.named_parameters())
    return [w for name, w in named if name.endswith(".q.weight")], [w for name, w in named if ".q." not in name]


def text_groups(t5, *others):
    """AdamW's groups of T5's weights and those of `others`; `share` is what of the rate a group gets."""
    queries, rest = split_queries(t5)
    return [{"params": queries, "share": QUERY_RATE},
            {"params": [*rest, *(w for module in others for w in module.parameters())], "share": 1.0}]


def make_optimizers(models, args):
    """[(optimizer, peak rate)]: Muon for the square-ish matrices inside the transformer's blocks, AdamW for the rest."""
    hidden, rest = [], []
    for name, weight in models["transformer"].named_parameters():
        in_block = weight.ndim == 2 and "transformer_blocks." in name and ".linear." not in name
        (hidden if in_block else rest).append(weight)
    texts = text_groups(models["t5"], *(module for name, module in models.items() if name in ("clip", "reading")))
    return [
        (torch.optim.Muon(hidden, lr=args.muon_lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
         args.muon_lr),
        (torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01), args.lr),
        (torch.optim.AdamW(texts, lr=args.text_lr, betas=(0.9, 0.98), weight_decay=0.01), args.text_lr),
    ]


def pack(z):
    """[n, c, h, w] -> [n, h/2*w/2, 4c], FLUX's token layout."""
    n, c, h, w = z.shape
    return z.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, c * 4)


def pool(clip, ids, end):
    """CLIP's pooled vector: its state at the first end token, [n, width]."""
    return clip(ids).last_hidden_state[torch.arange(len(ids), device=ids.device), (ids == end).int().argmax(1)]


def grid_ids(side):
    """Position ids of side x side image tokens: (0, y, x)."""
    ids = torch.zeros(side, side, 3)
    ids[..., 1] += torch.arange(side)[:, None]
    ids[..., 2] += torch.arange(side)[None]
    return ids.view(-1, 3)


class Data:
    """Packed latents with their token ids; draws random batches."""

    def __init__(self, args, device):
        self.two_shapes_share = args.two_shapes
        clip_tokenizer, t5_tokenizer = load_tokenizers(args.folder)
        z, captions = latents.load_or_make(args.folder, args.pictures)
        if args.more_two_shapes:
            more_z, more_captions = latents.load_or_make(args.folder, args.more_two_shapes, two_shapes_only=True)
            z, captions = torch.cat([z, more_z]), captions + more_captions
        self.latents, self.side, self.device = pack(z), z.shape[2] // 2, device
        self.eos = clip_tokenizer.eos_token_id
        two = torch.tensor([latents.has_two_shapes(caption) for caption in captions])
        self.one_shape, self.two_shapes = (~two).nonzero()[:, 0], two.nonzero()[:, 0]
        self.t5_ids = t5_tokenizer(captions, padding="max_length", max_length=TEXT_TOKENS, truncation=True,
                                   return_tensors="pt").input_ids
        self.t5_empty = t5_tokenizer([""], padding="max_length", max_length=TEXT_TOKENS,
                                     return_tensors="pt").input_ids[0]
        # CLIP is causal and only its state at the first end token is used: no more padding than the longest caption.
        self.clip_ids = clip_tokenizer(captions, padding="longest", max_length=77, truncation=True,
                                       return_tensors="pt").input_ids
        self.clip_empty = clip_tokenizer([""], padding="max_length", max_length=self.clip_ids.shape[1],
                                         return_tensors="pt").input_ids[0]
        self.words = reading.word_labels(captions, t5_tokenizer, TEXT_TOKENS)
        self.slots, self.no_slots = reading.slot_labels(captions), reading.slot_labels([""])

    def batch(self, size):
        one, two = (kind[torch.randint(0, len(kind), (size,))] for kind in (self.one_shape, self.two_shapes))
        pick = torch.where(torch.rand(size) < self.two_shapes_share, two, one)
        drop = (torch.rand(size) < CAPTION_DROP)[:, None]
        t5_ids = torch.where(drop, self.t5_empty, self.t5_ids[pick])
        clip_ids = torch.where(drop, self.clip_empty, self.clip_ids[pick])
        words = self.words[pick].masked_fill(drop[:, None], reading.IGNORE)
        slots = torch.where(drop, self.no_slots, self.slots[pick])
        return [t.to(self.device) for t in (self.latents[pick].float(), t5_ids, clip_ids, words, slots)]


def load_tokenizers(folder):
    clip_tokenizer = CLIPTokenizer.from_pretrained(f"{folder}/tokenizer")
    return clip_tokenizer, T5TokenizerFast.from_pretrained(f"{folder}/tokenizer_2")


def noise_levels(size, shift):
    """Logit-normal noise levels around sigmoid(shift), one in five uniform."""
    return torch.where(torch.rand(size) < 0.2, torch.rand(size), torch.sigmoid(torch.randn(size) + shift))


def has_fast_bfloat16(device):
    """Whether the processor multiplies bfloat16; elsewhere it is emulated, some seventy times slower than float32."""
    return device != "cpu" or torch.cpu._is_avx512_bf16_supported()


def orthogonalize_in_float32(gradient, coefficients, steps, eps):
    """Muon's Newton-Schulz iteration, which PyTorch computes in bfloat16."""
    a, b, c = coefficients
    x = gradient.T if gradient.size(0) > gradient.size(1) else gradient
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if gradient.size(0) > gradient.size(1) else x


def attention_choice(device):
    """On the CPU the plain attention is faster backwards than the fused one at these sizes."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else contextlib.nullcontext()


class Trainer:
    def __init__(self, args):
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.data = Data(args, self.device)
        self.models = build_models(load_tokenizers(args.folder)[0]).to(self.device)
        self.state_file = f"{args.folder}/flow_state.pt"
        self.step, self.share, self.losses = 0, 0.0, []
        if os.path.exists(f"{args.folder}/reading.pt"):
            self.models["reading"] = self.load_reading()
        self.optimizers = make_optimizers(self.models, args)
        if not os.path.exists(self.state_file) and os.path.exists(f"{args.folder}/transformer"):
            load_published(self.models, args.folder)
            print("continuing from the weights in the folder")
        self.ema = copy.deepcopy(self.models).requires_grad_(False)
        if os.path.exists(self.state_file):
            self.load_state()
        transformer = self.models["transformer"]
        self.transformer = torch.compile(transformer) if args.compile else transformer
        self.image_ids = grid_ids(self.data.side).to(self.device)
        self.text_ids = torch.zeros(TEXT_TOKENS, 3, device=self.device)

    def load_reading(self):
        heads = reading.Reading(self.models["t5"].config.d_model, self.models["clip"].config.hidden_size)
        heads.load_state_dict(torch.load(f"{self.args.folder}/reading.pt"))
        return heads.to(self.device)

    def load_state(self):
        state = torch.load(self.state_file, weights_only=False)
        self.models.load_state_dict(state["models"])
        self.ema.load_state_dict(state["ema"])
        for (optimizer, _), saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.share = state["step"], state["share"]
        print("resumed at step", self.step)

    def save(self):
        """Weights and training state, each written aside and then renamed."""
        for name, folder in (("transformer", "transformer"), ("t5", "text_encoder_2"), ("clip", "text_encoder")):
            target = f"{self.args.folder}/{folder}"
            self.ema[name].save_pretrained(target + ".part")
            os.makedirs(target, exist_ok=True)
            for file in os.listdir(target + ".part"):
                os.replace(f"{target}.part/{file}", f"{target}/{file}")
            os.rmdir(target + ".part")
        torch.save({"models": self.models.state_dict(), "ema": self.ema.state_dict(), "step": self.step,
                    "share": self.share, "optimizers": [o.state_dict() for o, _ in self.optimizers]},
                   self.state_file + ".part")
        os.replace(self.state_file + ".part", self.state_file)

    def loss(self):
        x0, t5_ids, clip_ids, words, slots = self.data.batch(self.args.batch)
        shift = self.args.noise_shift if self.share < SHIFTED_SHARE else 0.0
        noise, u = torch.randn_like(x0), noise_levels(len(x0), shift).to(self.device)
        mixed = (1 - u)[:, None, None] * x0 + u[:, None, None] * noise
        with torch.autocast(self.device, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            text = self.models["t5"](t5_ids).last_hidden_state
            pooled = pool(self.models["clip"], clip_ids, self.data.eos)
            velocity = self.transformer(
                hidden_states=mixed, timestep=u, encoder_hidden_states=text, pooled_projections=pooled,
                img_ids=self.image_ids, txt_ids=self.text_ids, return_dict=False)[0]
        return F.mse_loss(velocity.float(), noise - x0), self.reading_loss(text, pooled, words, slots)

    def reading_loss(self, text, pooled, words, slots):
        """How badly the encoders read, 0 where they are not asked."""
        if "reading" not in self.models:
            return 0.0
        return self.args.reading * sum(self.models["reading"].losses(text.float(), pooled.float(), words, slots))

    def rate(self):
        """Share of the peak rate: warm-up, flat, then straight down to zero at the end of the run."""
        return min(1.0, (self.step + 1) / 100) * min(1.0, (1 - self.share) / (1 - FLAT_SHARE))

    def train_step(self):
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * self.rate() * group.get("share", 1.0)
        loss, reading_loss = self.loss()
        (loss + reading_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.models.parameters(), 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.losses.append(loss.item())
        self.update_ema()

    @torch.no_grad()
    def update_ema(self):
        keep = min(EMA_HORIZON, (1 + self.step) / (20 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.models.parameters()), 1 - keep)

    def run(self):
        began, first_share, saved = time.time(), self.share, time.time()
        while self.share < 1:
            self.train_step()
            minutes = (time.time() - began) / 60
            self.share = min(1.0, first_share + (1 - first_share) * minutes / self.args.minutes)
            if self.step % 50 == 0:
                print(f"{minutes:.1f}m step {self.step} loss {np.mean(self.losses[-200:]):.4f}"
                      f" rate {self.rate():.3f}", flush=True)
            if time.time() - saved > CHECKPOINT_MINUTES * 60:
                self.save()
                saved = time.time()
        self.save()


def main():
    args = parse_arguments()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    trainer = Trainer(args)
    if not has_fast_bfloat16(trainer.device):
        torch.optim._muon._zeropower_via_newtonschulz = orthogonalize_in_float32
    print({name: f"{sum(p.numel() for p in m.parameters()) / 1e6:.2f} M" for name, m in trainer.models.items()})
    with attention_choice(trainer.device):
        trainer.run()
    FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False).save_pretrained(f"{args.folder}/scheduler")
    with open(f"{args.folder}/model_index.json", "w") as file:
        json.dump(MODEL_INDEX, file, indent=2)
    print("done", trainer.step)


if __name__ == "__main__":
    main()
