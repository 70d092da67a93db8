"""One good row of every preference set, as its authors publish it; made up, not copied."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def sff(n: int) -> Row:
    info = {"id": f"t{n}", "post": f"Post {n}", "title": "A title", "subreddit": "tifu", "article": None}
    summaries = [{"text": f"one {n}", "policy": "a"}, {"text": f"two {n}", "policy": "b"}]
    return {"info": info, "summaries": summaries, "choice": n % 2, "worker": "w1", "batch": "b", "split": "train"}


def hh(n: int) -> Row:
    start = f"\n\nHuman: hi {n}\n\nAssistant: hello\n\nHuman: more?\n\nAssistant:"
    return {"chosen": f"{start} yes {n}", "rejected": f"{start} no {n}"}


def rewardbench(n: int) -> Row:
    models = {"chosen_model": "m1", "rejected_model": "m2", "subset": "alpacaeval-easy"}
    return {"prompt": f"Ask {n}", "chosen": f"yes {n}", "rejected": f"no {n}", **models, "id": n}


def rewardbench2(n: int) -> Row:
    counts = {"num_correct": 1, "num_incorrect": 3, "total_completions": 4, "subset": "Math"}
    return {"id": str(n), "prompt": f"Ask {n}", "chosen": ["yes"], "rejected": ["a", "b", "c"], **counts}


def rm_bench(n: int) -> Row:
    lists = {"chosen": ["y1", "y2", "y3"], "rejected": ["n1", "n2", "n3"]}
    return {"id": n, "prompt": f"Ask {n}", **lists, "domain": "chat"}


def rmb(n: int) -> Row:
    path = {"category_path": "Pairwise_set/Helpfulness/Code/Data", "pair_uid": f"u{n}"}
    answers = {"chosen": {"llm_name": "a", "answer": "yes"}, "reject": {"llm_name": "b", "answer": "no"}}
    return {**path, "conversation_input": [said("user", f"Ask {n}")], **answers}


def judgebench(n: int) -> Row:
    row = {"pair_id": str(n), "original_id": "o", "source": "mmlu-pro-math", "question": f"Ask {n}"}
    return {**row, "response_model": "gpt-4o", "response_A": "right", "response_B": "wrong", "label": "A>B"}


def llmbar(n: int) -> Row:
    return {"input": f"Do {n}", "output_1": f"done {n}", "output_2": f"not done {n}", "label": 1 + n % 2}


def autoj(n: int) -> Row:
    row = {"scenario": "chitchat", "label": n % 3, "prompt": f"Talk {n}"}
    return {**row, "response 1": f"one {n}", "response 2": f"two {n}"}


def pandalm(n: int) -> Row:
    asked = {"idx": n, "motivation_app": "Mail", "cmp_key": "m1_m2", "instruction": f"Do {n}", "input": "this"}
    labels = {"annotator1": 1, "annotator2": 1, "annotator3": 0}
    return {**asked, "response1": f"one {n}", "response2": f"two {n}", **labels}


def helpsteer3(n: int) -> Row:
    context = [said("user", f"Ask {n}"), said("assistant", "What?"), said("user", "That")]
    marks = [{"score": 2, "reasoning": "r", "feedback1": "f", "feedback2": "g"}]
    responses = {"response1": f"one {n}", "response2": f"two {n}"}
    return {
        "domain": "code", "language": "python", "context": context, **responses,
        "overall_preference": n % 7 - 3, "individual_preference": marks,
    }  # fmt: skip


def trl(n: int) -> Row:
    chosen, rejected = [said("assistant", f"yes {n}")], [said("assistant", f"no {n}")]
    return {"prompt": [said("user", f"Ask {n}")], "chosen": chosen, "rejected": rejected}


def ultrafeedback(n: int) -> Row:
    chosen, rejected = ([said("user", f"Ask {n}"), said("assistant", f"{word} {n}")] for word in ("yes", "no"))
    row = {"prompt": f"Ask {n}", "prompt_id": "p", "chosen": chosen, "rejected": rejected, "messages": chosen}
    return {**row, "score_chosen": 8.0, "score_rejected": 8.0 if n % 3 == 0 else 5.5}


def skywork(n: int) -> Row:
    chosen, rejected = ([said("user", f"Ask {n}"), said("assistant", f"{word} {n}")] for word in ("yes", "no"))
    return {"chosen": chosen, "rejected": rejected, "source": "magpie_ultra"}


def swift_rm(n: int) -> Row:
    return {"messages": [said("user", f"Ask {n}"), said("assistant", f"yes {n}")], "rejected_response": f"no {n}"}


MAKERS = {
    "summarize_from_feedback": sff,
    "anthropic_hh": hh,
    "rewardbench": rewardbench,
    "rewardbench2": rewardbench2,
    "rm_bench": rm_bench,
    "rmb": rmb,
    "judgebench": judgebench,
    "llmbar": llmbar,
    "autoj": autoj,
    "pandalm": pandalm,
    "helpsteer3": helpsteer3,
    "trl": trl,
    "ultrafeedback_binarized": ultrafeedback,
    "skywork_reward": skywork,
    "swift_rm": swift_rm,
}
