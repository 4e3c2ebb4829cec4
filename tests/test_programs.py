"""Programs as MXNet's tutorials have them, run as they are and with one line more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

# MXNet itself does not import with every NumPy, so mxtrt comes first, and is idle in the original
# programs. One process runs them all: most of the time would go by with imports.
RUN = """
import mxtrt
import runpy, sys
from mxtrt import operator

def calls():
    return sum(engine.record.calls for engine in operator._ENGINES.values())

for program in sys.argv[1:]:
    before = calls()
    sys.argv[1:] = [program[:-3] + ".npz"]
    runpy.run_path(program, {}, "__main__")
    print(program, calls() - before)
"""

MODULE = """
import sys
import mxnet as mx
import numpy as np

sym, arg_params, aux_params = mx.model.load_checkpoint("net", 3)
#1 import mxtrt; sym, (arg_params, aux_params) = mxtrt.optimize(sym, (arg_params, aux_params))

val = mx.io.NDArrayIter(np.load("images.npy"), np.load("labels.npy"), batch_size=8)
mod = mx.mod.Module(symbol=sym, context=mx.cpu(), label_names=["softmax_label"])
mod.bind(for_training=False, data_shapes=val.provide_data, label_shapes=val.provide_label)
mod.set_params(arg_params, aux_params, allow_missing=True)

prob = mod.predict(val).asnumpy()
val.reset()
metric = mx.metric.CompositeEvalMetric([mx.metric.Accuracy(), mx.metric.TopKAccuracy(2)])
mod.score(val, metric)
np.savez(sys.argv[1], prob=prob, scores=metric.get()[1])
"""

ONE_IMAGE = """
import sys
from collections import namedtuple
import mxnet as mx
import numpy as np

Batch = namedtuple("Batch", ["data"])

sym, arg_params, aux_params = mx.model.load_checkpoint("net", 3)
#1 import mxtrt; sym, (arg_params, aux_params) = mxtrt.optimize(sym, (arg_params, aux_params))
mod = mx.mod.Module(symbol=sym, context=mx.cpu(), label_names=None)
mod.bind(for_training=False, data_shapes=[("data", (1, 3, 16, 16))],
         label_shapes=mod._label_shapes)
mod.set_params(arg_params, aux_params, allow_missing=True)

def predict(image):
    mod.forward(Batch([mx.nd.array(image[None])]))
    prob = mod.get_outputs()[0].asnumpy()
    return np.squeeze(prob)

np.savez(sys.argv[1], prob=[predict(image) for image in np.load("images.npy")[:5]])
"""

FEATURES = """
import sys
import mxnet as mx
import numpy as np

sym, arg_params, aux_params = mx.model.load_checkpoint("net", 3)
params = arg_params, aux_params
fe_sym = sym.get_internals()["flat_output"]
#1 import mxtrt; fe_sym, params = mxtrt.optimize(fe_sym, params, allow_extra_params=True)
fe_mod = mx.mod.Module(symbol=fe_sym, context=mx.cpu(), label_names=None)
fe_mod.bind(for_training=False, data_shapes=[("data", (4, 3, 16, 16))])
fe_mod.set_params(*params, allow_extra=True)
features = []
for start in range(0, 8, 4):
    batch = mx.io.DataBatch([mx.nd.array(np.load("images.npy")[start:start + 4])], None)
    fe_mod.forward(batch)
    features.append(fe_mod.get_outputs()[0].asnumpy())
np.savez(sys.argv[1], features=np.concatenate(features))
"""

IMPORTS = """
import sys
import warnings
import mxnet as mx
import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    net = mx.gluon.SymbolBlock.imports("gluon-symbol.json", ["data"], "gluon-0000.params",
                                       ctx=mx.cpu())
#1 net.hybridize(backend="mxtrt")

images = mx.nd.array(np.load("images.npy"))
mean = mx.nd.array([0.1, 0.2, 0.3]).reshape((1, 3, 1, 1))
prob = mx.nd.softmax(net(images[:6] - mean))
ind = prob.topk(k=3)
single = net(images[0].expand_dims(axis=0))
np.savez(sys.argv[1], prob=prob.asnumpy(), ind=ind.asnumpy(), single=single.asnumpy())
"""

EVALUATION = """
import sys
import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.gluon import nn

ctx = [mx.cpu()]
net = nn.HybridSequential()
with net.name_scope():
    net.add(nn.Conv2D(6, 3, activation="relu"), nn.BatchNorm(), nn.MaxPool2D(),
            nn.Flatten(), nn.Dropout(0.5), nn.Dense(4))
net.load_parameters("net.params", ctx=ctx)
net.hybridize()
#1 net.hybridize(backend="mxtrt")

def transform(data, label):
    return data * 2 - 1, label

dataset = gluon.data.ArrayDataset(np.load("images.npy"), np.load("labels.npy"))
loader = gluon.data.DataLoader(dataset.transform(transform), batch_size=8, shuffle=False,
                               num_workers=WORKERS, last_batch="keep")
metric, loss = mx.metric.Accuracy(), gluon.loss.SoftmaxCrossEntropyLoss()
losses = []
for epoch in range(2):
    metric.reset()
    for batch in loader:
        data = gluon.utils.split_and_load(batch[0], ctx_list=ctx, batch_axis=0)
        label = gluon.utils.split_and_load(batch[1], ctx_list=ctx, batch_axis=0)
        outputs = [net(X) for X in data]
        metric.update(label, outputs)
        losses += [loss(output, y).mean().asscalar() for output, y in zip(outputs, label)]
np.savez(sys.argv[1], accuracy=metric.get()[1], losses=losses)
"""

SERVER = """
import queue
import sys
import threading
import mxnet as mx
import numpy as np

sym, arg_params, aux_params = mx.model.load_checkpoint("net", 3)
#1 import mxtrt; sym, (arg_params, aux_params) = mxtrt.optimize(sym, (arg_params, aux_params))

requests, answers = queue.Queue(), {}

def serve():
    executors = {}
    while True:
        request = requests.get()
        if request is None:
            return
        number, images = request
        if len(images) not in executors:
            executor = sym.simple_bind(mx.cpu(), grad_req="null", data=images.shape)
            executor.copy_params_from(arg_params, aux_params)
            executors[len(images)] = executor
        executor = executors[len(images)]
        answers[number] = executor.forward(is_train=False, data=mx.nd.array(images))[0].asnumpy()

threads = [threading.Thread(target=serve) for _ in range(8)]
for thread in threads:
    thread.start()
images = np.load("images.npy")
for number in range(60):
    start = number % 10
    requests.put((number, images[start:start + 1 + number % 3]))
for _ in threads:
    requests.put(None)
for thread in threads:
    thread.join()
np.savez(sys.argv[1], **{str(number): answers[number] for number in sorted(answers)})
"""

PROGRAMS = {
    "predict over an iterator": MODULE,
    "one image at a time": ONE_IMAGE,
    "features of an inner layer": FEATURES,
    "SymbolBlock.imports": IMPORTS,
    "Gluon evaluation": EVALUATION.replace("WORKERS", "0"),
    "Gluon evaluation with workers": EVALUATION.replace("WORKERS", "2"),
    "a server with threads": SERVER,
}


def checkpoint(folder: Path) -> None:
    """Write what the programs read: a checkpoint, an exported Gluon net, its weights, data."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.uniform(0, 1, (20, 3, 16, 16)).astype("float32"))
    np.save(folder / "labels.npy", rng.integers(0, 4, 20).astype("float32"))
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=6, name="conv")
    x = mx.sym.Activation(mx.sym.BatchNorm(x, name="bn"), act_type="relu", name="relu")
    x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool")
    x = mx.sym.FullyConnected(mx.sym.Flatten(x, name="flat"), num_hidden=4, name="fc")
    symbol = mx.sym.SoftmaxOutput(x, name="softmax")
    module = mx.mod.Module(symbol)
    module.bind([("data", (1, 3, 16, 16))], [("softmax_label", (1,))])
    mx.random.seed(0)
    module.init_params(mx.init.Xavier())
    module.save_checkpoint(str(folder / "net"), 3)
    net = nn.HybridSequential()
    with net.name_scope():
        net.add(nn.Conv2D(6, 3, activation="relu"), nn.BatchNorm(), nn.MaxPool2D())
        net.add(nn.Flatten(), nn.Dropout(0.5), nn.Dense(4))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    net(mx.nd.ones((1, 3, 16, 16)))
    net.save_parameters(str(folder / "net.params"))
    net.export(str(folder / "gluon"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("programs")
    checkpoint(made)
    return made


def start(folder: Path, kind: str, programs: Mapping[str, str]) -> subprocess.Popen[str]:
    """Write programs and run them."""
    for name, text in programs.items():
        (folder / f"{kind} {name}.py").write_text(text)
    files = [f"{kind} {name}.py" for name in programs]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", RUN, *files],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def calls(folder: Path) -> dict[str, int]:
    """Run all programs with and without the line; return how often engines ran in each."""
    changed = {name: text.replace("#1 ", "") for name, text in PROGRAMS.items()}
    counts = {}
    for process in (start(folder, "plain", PROGRAMS), start(folder, "optimized", changed)):
        out, errors = process.communicate(timeout=200)
        told = [line for line in errors.splitlines() if "Subgraph backend MKLDNN" not in line]
        assert (process.returncode, told) == (0, [])
        for line in out.splitlines():
            file, _, count = line.rpartition(" ")
            counts[file] = int(count)
    return counts


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, folder: Path, calls: dict[str, int]) -> None:
    assert PROGRAMS[name].count("#1 ") == 1
    assert calls[f"plain {name}.py"] == 0
    assert calls[f"optimized {name}.py"] > 0
    files = (folder / f"{kind} {name}.npz" for kind in ("plain", "optimized"))
    expected, found = (dict(np.load(file)) for file in files)
    assert found.keys() == expected.keys()
    for key, want in expected.items():
        np.testing.assert_allclose(found[key], want, rtol=1e-4, atol=1e-5)
