"""The RQ-VAE of this library in PyTorch: the counterpart of `measure rqvae-step`.

Loads what `measure dump-rqvae` wrote, and times nothing before loss terms, codes and gradient norms
agree.
"""

import json
import math
import os
import sys
import time

from common import emit, imported, need, parser, times, torch_with_threads

TOLERANCE = 1e-4  # Relative, on loss terms and gradient norms.

torch = need("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


class Mlp(nn.Module):
    """Linear layers with a GELU between them."""

    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)


class RqVae(nn.Module):
    def __init__(self, config, d):
        super().__init__()
        widths = [d, *config["hidden"], config["latent"]]
        self.encoder, self.decoder = Mlp(widths), Mlp(widths[::-1])
        by_gradient = config["codebooks"] == "gradient"
        self.codebooks = nn.ParameterList(
            nn.Parameter(torch.empty(size, config["latent"]), requires_grad=by_gradient)
            for size in config["sizes"]
        )
        self.commitment, self.by_gradient = config["commitment"], by_gradient

    def quantise(self, latents):
        n = len(latents)
        residual, codes, residuals = latents, [], []
        codebook_loss = commitment_loss = latents.new_zeros(())
        for book in self.codebooks:
            fixed = residual.detach()
            with torch.no_grad():
                nearest = torch.addmm(book.square().sum(1), fixed, book.T, alpha=-2).argmin(1)
            chosen = book[nearest]
            if self.by_gradient:
                codebook_loss = codebook_loss + (fixed - chosen).square().sum() / n
            residual = residual - chosen.detach()
            commitment_loss = commitment_loss + residual.square().sum() / n
            codes.append(nearest)
            residuals.append(fixed)
        return latents - residual.detach(), codes, residuals, codebook_loss, commitment_loss

    def forward(self, x):
        through, codes, residuals, codebook, commitment = self.quantise(self.encoder(x))
        reconstruction = F.mse_loss(self.decoder(through), x)
        total = reconstruction + (codebook + self.commitment * commitment) / x.shape[1]
        return total, reconstruction, commitment, codes, residuals


def load(reference, folder):
    from safetensors.torch import load_file

    model = RqVae(reference["config"], reference["d"])
    tensors = load_file(os.path.join(folder, "weights.safetensors"))
    for name, tensor in tensors.items():
        # The library keeps the weights of linear layers as [input, output].
        linear = name.endswith(".weight")
        tensors[name] = tensor.T.contiguous() if linear else tensor
    model.load_state_dict(tensors)
    return model, load_file(os.path.join(folder, "batch.safetensors"))


def check(reference, folder):
    """The largest relative deviations from the reference."""
    model, batch = load(reference, folder)
    total, reconstruction, commitment, codes, _ = model(batch["rows"])
    same = (torch.cat(codes) == batch["codes"].long()).float().mean()
    if same < 0.999:
        sys.exit(f"not the same RQ-VAE: {float(same):.2%} of the codes agree")
    total.backward()
    relative = lambda a, b: abs(a - b) / max(abs(b), 1e-12)  # noqa: E731
    deviations = {
        "loss": relative(float(total.detach()), reference["loss"]),
        "reconstruction": relative(float(reconstruction.detach()), reference["reconstruction"]),
        "commitment": relative(float(commitment.detach()), reference["commitment"]),
    }
    expected = reference["gradient_norms"]
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            if name in expected:
                sys.exit(f"not the same RQ-VAE: no gradient for {name}")
            continue
        deviations[f"gradient norm of {name}"] = relative(
            float(parameter.grad.double().norm()), expected[name]
        )
    for name, deviation in deviations.items():
        if not deviation <= TOLERANCE:
            sys.exit(f"not the same RQ-VAE: {name} deviates by {deviation:.2e} (relative)")
    return max(deviations.values())


class Fit:
    """Epochs as the library runs them: shuffled batches, scaling, a schedule, moving averages."""

    def __init__(self, model, config, rows, args):
        self.model, self.config, self.rows = model, config, rows
        self.mean, self.deviation = rows.mean(0), rows.std()
        self.compiled = torch.compile(model) if args.compile else model
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=config["learning_rate"], betas=(0.9, 0.999), eps=1e-8,
            weight_decay=config["weight_decay"], fused=True,
        )
        sizes, latent = config["sizes"], config["latent"]
        self.counts = [torch.ones(size) for size in sizes]
        self.sums = [torch.zeros(size, latent) for size in sizes]
        self.usage = [torch.zeros(size) for size in sizes]
        self.step, self.steps = 0, 1
        # Codes from latents, so that the averages do not start empty.
        with torch.no_grad():
            residual = model.encoder(self.scaled(torch.arange(min(4096, len(rows)))))
            for level, book in enumerate(model.codebooks):
                book.copy_(residual[torch.randperm(len(residual))[: len(book)]])
                self.sums[level] = book.clone()
                nearest = torch.cdist(residual, book).argmin(1)
                residual = residual - book[nearest]

    def scaled(self, indices):
        return (self.rows[indices] - self.mean) / self.deviation

    def rate(self):
        warmup = max(self.steps // 20, 1)
        if self.step < warmup:
            return (self.step + 1) / warmup
        progress = (self.step - warmup) / max(self.steps - warmup, 1)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    def epoch(self):
        total = 0.0
        order = torch.randperm(len(self.rows))
        for indices in order.split(self.config["batch"]):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config["learning_rate"] * self.rate()
            self.optimizer.zero_grad(set_to_none=True)
            loss, _, _, codes, residuals = self.compiled(self.scaled(indices))
            loss.backward()
            self.optimizer.step()
            total = total + loss.detach() * (len(indices) / len(self.rows))
            self.count(codes, residuals)
            self.step += 1
        return float(total)

    @torch.no_grad()
    def count(self, codes, residuals):
        """Uses of the codes, and the moving averages where codebooks learn by them."""
        settings = self.config["codebooks"]
        for level, (code, residual) in enumerate(zip(codes, residuals)):
            counts = torch.bincount(code, minlength=len(self.counts[level])).float()
            self.usage[level] += counts
            if settings == "gradient":
                continue
            fresh = 1 - settings["ema"]["decay"]
            self.counts[level].lerp_(counts, fresh)
            chosen = torch.zeros_like(self.sums[level]).index_add_(0, code, residual)
            self.sums[level].lerp_(chosen, fresh)
            average = self.sums[level] / self.counts[level].clamp_min(1e-6)[:, None]
            self.model.codebooks[level].copy_(average)


def main():
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("folder", help="what `measure dump-rqvae` wrote")
    arguments.add_argument("--epoch", type=int, default=16, help="steps in an epoch")
    arguments.add_argument("--compile", action="store_true", help="torch.compile")
    args = arguments.parse_args()
    torch_with_threads(args.threads)
    imported()
    torch.manual_seed(args.seed)
    with open(os.path.join(args.folder, "reference.json")) as file:
        reference = json.load(file)
    deviation = check(reference, args.folder)
    config = reference["config"]
    model, _ = load(reference, args.folder)
    count, d = config["batch"] * args.epoch, reference["d"]
    centres = torch.randn(256, d)
    rows = 0.8 * centres[torch.arange(count) * 7919 % 256] + 0.6 * torch.randn(count, d)
    fit = Fit(model, config, rows, args)
    fit.steps = (args.warmup + args.steps) * args.epoch
    seconds = []
    for epoch in range(args.warmup + args.steps):
        started = time.perf_counter()
        loss = fit.epoch()
        if epoch >= args.warmup:
            seconds.append((time.perf_counter() - started) / args.epoch)
    measured = times(seconds, config["batch"])
    emit(
        "torch",
        {
            "measure": "rqvae-step",
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "compiled": args.compile,
            "largest_deviation": deviation,
            "loss": loss,
            "milliseconds": measured["seconds"] * 1e3,
            "settings": {
                "batch": config["batch"], "d": d, "hidden": config["hidden"],
                "latent": config["latent"], "sizes": config["sizes"],
                "codebooks": "gradient" if config["codebooks"] == "gradient" else "ema",
            },
            **measured,
        },
    )


if __name__ == "__main__":
    main()
