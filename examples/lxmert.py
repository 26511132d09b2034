"""From a photograph to an answer of Hugging Face's LXMERT, with the public class.

    pip install transformers
    python examples/lxmert.py demo/coffee.png "What is in the cup?"

Downloads the detector of its features (0.3 GB) and the answering model (0.9 GB) when they are first
used.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from transformers import LxmertForQuestionAnswering, LxmertTokenizer

from vmb_d2 import RegionFeatureExtractor

MOST_ANSWERS = 5


def scores(question, regions, tokenizer, model):
    """The model's score of each answer, Tensor[A], for one image's RegionFeatures."""
    sides = np.array([regions.image_width, regions.image_height] * 2, np.float32)
    with torch.no_grad():
        output = model(
            **tokenizer(question, return_tensors="pt"),
            visual_feats=torch.from_numpy(regions.features)[None],  # Tensor[1, N, D]
            visual_pos=torch.from_numpy(regions.bbox / sides)[None],  # Tensor[1, N, 4], 0..1
        )
    return output.question_answering_score[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("question")
    parser.add_argument("--detector", default="frcnn_vg", help="a model's name or a yaml")
    parser.add_argument("--weights", help="a checkpoint; the released one by default")
    parser.add_argument("--lxmert", default="unc-nlp/lxmert-vqa-uncased", help="a name or a folder")
    args = parser.parse_args()

    extractor = RegionFeatureExtractor.from_pretrained(args.detector, weights=args.weights)
    regions = extractor.extract(args.photo)
    print(f"{len(regions.bbox)} regions, features of {regions.features.shape[1]} numbers each")

    tokenizer = LxmertTokenizer.from_pretrained(args.lxmert)
    model = LxmertForQuestionAnswering.from_pretrained(args.lxmert).eval()
    best = scores(args.question, regions, tokenizer, model).topk(MOST_ANSWERS)
    for score, answer in zip(best.values, best.indices, strict=True):
        print(f"{score:7.2f}  answer {int(answer)}")


if __name__ == "__main__":
    main()
