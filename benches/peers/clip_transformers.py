"""CLIP's image tower of transformers with random weights: the counterpart of `measure clip`."""

from common import emit, imported, need, parser, repeat, times, torch_with_threads

torch = need("torch")
transformers = need("transformers")


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--batch", type=int, default=32)
    arguments.add_argument("--patch", type=int, default=32)
    arguments.add_argument("--width", type=int, default=768)
    arguments.add_argument("--layers", type=int, default=12)
    args = arguments.parse_args()
    torch_with_threads(args.threads)
    imported()
    torch.manual_seed(args.seed)
    config = transformers.CLIPVisionConfig(
        hidden_size=args.width, intermediate_size=4 * args.width, num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64, image_size=224, patch_size=args.patch,
    )
    tower = transformers.CLIPVisionModel(config).eval()
    pixels = torch.randn(args.batch, 3, 224, 224)
    with torch.inference_mode():
        seconds = repeat(lambda _: tower(pixel_values=pixels).pooler_output.sum().item(), args.warmup, args.steps)
    emit("transformers", {
        "measure": "clip", "version": transformers.__version__, "threads": torch.get_num_threads(),
        "settings": {"batch": args.batch, "patch": args.patch, "width": args.width, "layers": args.layers},
        **times(seconds, args.batch),
    })


if __name__ == "__main__":
    main()
