"""The programs in examples/ run, with small models in the place of those that they download."""

import pytest
import support
from transformers import (
    BertTokenizer,
    LxmertConfig,
    LxmertForQuestionAnswering,
    LxmertTokenizer,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from reference.goldens import image_path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "in", "the", "cup", "?"]


DETECTOR = "tiny_frcnn_vg"
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}


def visual_bert(folder):
    answers = {i: f"answer {i}" for i in range(7)}
    config = VisualBertConfig(
        vocab_size=len(WORDS),
        visual_embedding_dim=256,
        num_hidden_layers=1,
        id2label=answers,
        label2id={text: i for i, text in answers.items()},
        **SMALL,
    )
    VisualBertForQuestionAnswering(config).save_pretrained(folder)
    BertTokenizer(folder / "vocabulary").save_pretrained(folder)
    return ["--visualbert", folder, "--tokenizer", folder]


def lxmert(folder):
    config = LxmertConfig(
        vocab_size=len(WORDS),
        visual_feat_dim=256,
        num_qa_labels=7,
        l_layers=1,
        x_layers=1,
        r_layers=1,
        **SMALL,
    )
    LxmertForQuestionAnswering(config).save_pretrained(folder)
    LxmertTokenizer(folder / "vocabulary").save_pretrained(folder)
    return ["--lxmert", folder]


@pytest.mark.slow
@pytest.mark.parametrize("make", [visual_bert, lxmert])
def test_from_a_photograph_to_answers(tmp_path, make):
    (tmp_path / "vocabulary").write_text("\n".join(WORDS))
    options = [
        "--detector",
        support.yaml_path(DETECTOR),
        "--weights",
        support.vmb_checkpoint(DETECTOR),
        *make(tmp_path),
    ]
    program = f"examples/{make.__name__.replace('_', '')}.py"
    question = [image_path("coffee.png"), "What is in the cup?"]
    done = support.run_tool(program, *question, *options, VMB_D2_CACHE=support.scratch() / "cache")
    assert done.returncode == 0, done.stderr
    first, *best = done.stdout.splitlines()
    assert first == "36 regions, features of 256 numbers each"
    scores = [float(line.split()[0]) for line in best]
    assert len(best) == 5 and scores == sorted(scores, reverse=True)
    assert all(line.split(maxsplit=1)[1] in {f"answer {i}" for i in range(7)} for line in best)
