"""From a photograph to an answer of Hugging Face's VisualBERT, with the public class.

    pip install transformers
    python examples/visualbert.py demo/coffee.png "What is in the cup?"

Downloads the detector (0.3 GB) and the answering model (0.5 GB) when they are first used. Which
detector a VisualBERT was trained on, its model card says; the answers mean something only with
features of that one.
"""

from __future__ import annotations

import argparse

import torch
from transformers import BertTokenizer, VisualBertForQuestionAnswering

from vmb_d2 import RegionFeatureExtractor

MOST_ANSWERS = 5


def scores(question, features, tokenizer, model):
    """The model's score of each answer, Tensor[A], for one image's features, ndarray[N, D]."""
    visual_embeds = torch.from_numpy(features)[None]  # Tensor[1, N, D]
    with torch.no_grad():
        output = model(
            **tokenizer(question, return_tensors="pt"),
            visual_embeds=visual_embeds,
            visual_token_type_ids=torch.ones(visual_embeds.shape[:2], dtype=torch.long),
            visual_attention_mask=torch.ones(visual_embeds.shape[:2]),
        )
    return output.logits[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("question")
    parser.add_argument("--detector", default="frcnn_vg", help="a model's name or a yaml")
    parser.add_argument("--weights", help="a checkpoint; the released one by default")
    parser.add_argument("--visualbert", default="uclanlp/visualbert-vqa", help="a name or a folder")
    parser.add_argument("--tokenizer", default="google-bert/bert-base-uncased", help="likewise")
    args = parser.parse_args()

    extractor = RegionFeatureExtractor.from_pretrained(args.detector, weights=args.weights)
    regions = extractor.extract(args.photo)
    print(f"{len(regions.bbox)} regions, features of {regions.features.shape[1]} numbers each")

    tokenizer = BertTokenizer.from_pretrained(args.tokenizer)
    model = VisualBertForQuestionAnswering.from_pretrained(args.visualbert).eval()
    best = scores(args.question, regions.features, tokenizer, model).topk(MOST_ANSWERS)
    for score, answer in zip(best.values, best.indices, strict=True):
        print(f"{score:7.2f}  {model.config.id2label[int(answer)]}")


if __name__ == "__main__":
    main()
