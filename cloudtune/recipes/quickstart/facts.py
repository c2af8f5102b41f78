"""The little world of the quickstart: facts about training and clouds, as notes and as conversations.

Run it to write the three files of ``data/`` again; the same code always gives the same bytes. The text was written
for this project and is free for any use (CC0).

* ``notes.jsonl``: every fact in some plain forms, what the small base model learns while it is prepared;
* ``train.jsonl`` and ``eval.jsonl``: conversations about the same facts. Every fact is asked in several ways; one of
  them is kept for evaluation, and no two facts keep the same ways back.
"""

import json
import sys
from pathlib import Path

#: subject -> what is true of it; the subject can stand in every question below.
FACTS = {
    "a model": "A model is a function with many numbers inside, and training finds those numbers.",
    "a parameter": "A parameter is one number of a model that training may change.",
    "a token": "A token is the piece of text that a language model reads and writes.",
    "a tokenizer": "A tokenizer cuts text into tokens and puts tokens together into text.",
    "a vocabulary": "A vocabulary is the list of all tokens that a tokenizer knows.",
    "an embedding": "An embedding is the row of numbers that stands for a token inside a model.",
    "attention": "Attention lets every token look back at the tokens before it and choose what matters.",
    "a layer": "A layer is one floor of a network: attention first, then a small network of its own.",
    "the loss": "The loss is a number that says how wrong the model is, so lower is better.",
    "the evaluation loss": "The evaluation loss is measured on rows that the model never trained on.",
    "a gradient": "A gradient says in which direction each parameter should move to make the loss smaller.",
    "the learning rate": "The learning rate says how far the parameters move at every step.",
    "warmup": "Warmup lets the learning rate grow slowly at the start so that training does not jump.",
    "a scheduler": "A scheduler changes the learning rate while training goes on.",
    "an optimizer": "An optimizer turns gradients into steps of the parameters.",
    "Adam": "Adam is an optimizer that keeps two running averages for every parameter.",
    "a batch": "A batch is the group of rows that a model sees in one step.",
    "gradient accumulation": "Gradient accumulation adds up several small batches before one step is taken.",
    "an epoch": "An epoch is one pass over the whole training data.",
    "a step": "A step is one update of the parameters.",
    "overfitting": "Overfitting means that a model learns its rows by heart and fails on new ones.",
    "dropout": "Dropout switches off random parts of a network so that it does not rely on a few.",
    "a checkpoint": "A checkpoint is a copy of the training on disk from which it can go on later.",
    "a seed": "A seed makes random choices come out the same way every time.",
    "pretraining": "Pretraining teaches a model the language before anybody asks it for help.",
    "fine-tuning": "Fine-tuning goes on training a ready model with a little data of your own.",
    "supervised fine-tuning": "Supervised fine-tuning shows a model questions together with good answers.",
    "LoRA": "LoRA leaves the model frozen and trains two small matrices beside each large one.",
    "QLoRA": "QLoRA is LoRA over a model whose frozen weights are kept in four bits.",
    "an adapter": "An adapter is the small file of new weights that fine-tuning with LoRA leaves.",
    "the rank of an adapter": "The rank of an adapter is the width of its two matrices, often eight or sixteen.",
    "merging": "Merging adds an adapter to its base model so that one plain model is left.",
    "a base model": "A base model is the model that fine-tuning starts from.",
    "quantization": "Quantization stores numbers with fewer bits to save memory.",
    "bfloat16": "Bfloat16 is a number of sixteen bits with the range of one of thirty-two.",
    "mixed precision": "Mixed precision computes in sixteen bits and keeps the important sums in thirty-two.",
    "a chat template": "A chat template turns a conversation into the one text that a model reads.",
    "packing": "Packing puts several short rows into one long sequence so that no place is wasted.",
    "padding": "Padding fills short rows with empty tokens until all rows of a batch are equally long.",
    "gradient checkpointing": "Gradient checkpointing forgets activations and computes them again to save memory.",
    "data parallelism": "Data parallelism gives every process the whole model and a different part of the batch.",
    "tensor parallelism": "Tensor parallelism cuts single matrices into pieces that several devices multiply.",
    "pipeline parallelism": "Pipeline parallelism gives every device some of the layers, one after the other.",
    "FSDP": "FSDP cuts the parameters into shards so that each process keeps only its own share.",
    "a shard": "A shard is the part of something large that one process keeps.",
    "a rank": "A rank is the number of one process in a job, counted from zero.",
    "the world size": "The world size is the number of all processes in a job.",
    "a node": "A node is one machine of a job, with its own processes and devices.",
    "a rendezvous": "A rendezvous is where the nodes of a job meet and agree on their ranks.",
    "torchrun": "Torchrun starts the processes of a training job and tells each its rank.",
    "an all-reduce": "An all-reduce adds up numbers from all processes and gives everybody the sum.",
    "an accelerator": "An accelerator is a chip made for large matrix products, such as a GPU.",
    "a GPU": "A GPU is a chip with thousands of small cores and fast memory of its own.",
    "Trainium": "Trainium is a chip for training that is programmed through Neuron.",
    "a shape": "A shape is a kind of machine in a cloud: its cores, its memory and its accelerators.",
    "a region": "A region is a place in the world where a cloud has its machines.",
    "a bucket": "A bucket is a named store of files in a cloud.",
    "an image": "An image is a packed file system from which containers start.",
    "a container": "A container is a process with a file system of its own, started from an image.",
    "a quota": "A quota is the most of something that a cloud lets you use.",
    "a spot machine": "A spot machine is cheap because the cloud may take it back at any time.",
    "a secret": "A secret is a password or key that a job fetches and that no log may show.",
    "a job": "A job is a piece of work with code, machines and a result.",
    "a pipeline": "A pipeline is a row of jobs in which each uses what the ones before it left.",
    "a registry": "A registry is where finished models are filed under a name and a version.",
    "an endpoint": "An endpoint is an address at which a model answers questions.",
    "inference": "Inference means that a finished model is used and no longer trained.",
    "latency": "Latency is the time from a question to its answer.",
    "throughput": "Throughput is how much work gets done in a second.",
    "a log": "A log is the list of lines that a job writes while it runs.",
}

QUESTIONS = (
    "What is {}?",
    "Explain {}.",
    "What should I know about {}?",
    "Can you tell me about {}?",
    "Describe {} in one sentence.",
    "I keep hearing about {}. What is it?",
    "Please explain {} to a beginner.",
)


NOTES = (
    "{fact}",
    "Note on {subject}: {fact}",
    "Glossary, {subject}. {fact}",
    "In short, {subject}: {fact}",
    "About {subject}, in the words of the manual: {fact}",
    "Under {subject} the book says: {fact}",
)


def conversation(*turns: str) -> dict[str, list[dict[str, str]]]:
    """Return a row in the OpenAI messages format from texts that take turns, the user's first."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]}


def rows() -> dict[str, list[dict[str, object]]]:
    """Return the rows of all three files."""
    out: dict[str, list[dict[str, object]]] = {"notes": [], "train": [], "eval": []}
    subjects = list(FACTS)
    for index, subject in enumerate(subjects):
        for note in NOTES:
            out["notes"].append({"text": note.format(subject=subject, fact=FACTS[subject])})
        kept_back = index % len(QUESTIONS)
        for number, question in enumerate(QUESTIONS):
            part = "eval" if number == kept_back else "train"
            out[part].append(dict(conversation(question.format(subject), FACTS[subject])))
    for first, second in zip(subjects[::2], subjects[1::2], strict=True):
        turns = (f"What is {first}?", FACTS[first], f"And {second}?", FACTS[second])
        out["train"].append(dict(conversation(*turns)))
    return out


def write(folder: Path) -> None:
    """Write the three files into a folder."""
    for name, items in rows().items():
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
