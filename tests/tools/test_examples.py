"""The programs in examples/ run, with small models in the place of those that they download."""

import numpy as np
import pytest
import support
from support import TINY_FPN
from transformers import BertTokenizer, VisualBertConfig, VisualBertForQuestionAnswering

from reference.goldens import image_path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "in", "the", "cup", "?"]


@pytest.mark.slow
def test_from_a_photograph_to_answers_of_visual_bert(tmp_path):
    dimension = np.load(next(support.REFERENCE.glob(f"golden/{TINY_FPN}*.npz")))["features"].shape[
        1
    ]
    (tmp_path / "vocabulary").write_text("\n".join(WORDS))
    BertTokenizer(tmp_path / "vocabulary").save_pretrained(tmp_path)
    answers = {i: f"answer {i}" for i in range(7)}
    config = VisualBertConfig(
        vocab_size=len(WORDS),
        visual_embedding_dim=dimension,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        id2label=answers,
        label2id={text: i for i, text in answers.items()},
    )
    VisualBertForQuestionAnswering(config).save_pretrained(tmp_path)
    models = [
        "--detector",
        support.yaml_path(TINY_FPN),
        "--weights",
        support.vmb_checkpoint(TINY_FPN),
    ]
    models += ["--visualbert", tmp_path, "--tokenizer", tmp_path]
    question = [image_path("coffee.png"), "What is in the cup?"]
    done = support.run_tool(
        "examples/visualbert.py", *question, *models, VMB_D2_CACHE=support.scratch() / "cache"
    )
    assert done.returncode == 0, done.stderr
    first, *best = done.stdout.splitlines()
    assert first == f"100 regions, features of {dimension} numbers each"
    scores = [float(line.split()[0]) for line in best]
    assert len(best) == 5 and scores == sorted(scores, reverse=True)
    assert all(line.split(maxsplit=1)[1] in answers.values() for line in best)
