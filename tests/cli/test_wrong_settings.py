"""A wrong setting is answered by one line with the culprit and a hint, and nothing is left."""

from __future__ import annotations

import evaluate
import predict
import pytest
import train
from conftest import TINY, files_below, tiny_training


@pytest.mark.many_parameters
@pytest.mark.parametrize(
    ("override", "culprit", "hint"),
    [
        # keys, groups and types
        ("trainer.epoch=3", "no key trainer.epoch", "did you mean trainer.epochs"),
        ("trainer.lr=3", "no key trainer.lr", "did you mean optimizer.lr or"),
        ("lr=3", "no key lr", "did you mean optimizer.lr?"),
        (
            "model=medtt",
            "model=medtt is not known",
            "did you mean medt or medt_plus? or, for one of your own, give --config-dir=",
        ),
        ("loss=nope", "loss=nope is not known", "choose one of cross_entropy, dice"),
        ("experiment=nope", "experiment=nope is not known", "choose one of debug, finetune"),
        ("+extra=1", "'+extra=1' is no setting", "give key=value"),
        ("~seed", "'~seed' is no setting", "give key=value"),
        ("glas", "'glas' is no setting", "give key=value without spaces around the ="),
        ("--epochs=3", "no option --epochs=3", "key=value"),
        ("seed=[", "seed=[ cannot be read", "--help"),
        ("trainer.epochs=many", "trainer.epochs: Value 'many'", "see --help"),
        ("model.depths=4", "model.depths is 4, which is not a list", "see its config"),
        ("hydra/launcher=1", "hydra/launcher=1 is no choice", "give GROUP=OPTION"),
        ("hydra/launcher=[[1]]", "hydra/launcher=[[1]] is no choice", "give GROUP=OPTION"),
        ("hydra.verbose=[1]", "A logger name must be a string", "hydra.verbose=[1])"),
        ("model=" + "x" * 5000, "xxx is too long for a name", "see --help"),
        # values
        ("optimizer.lr=" + "9" * 400, "optimizer.lr is 9999", "not a number"),
        ("optimizer.betas=[0.9," + "9" * 400 + "]", "optimizer.betas is [0.9, 99", "each a number"),
        ("optimizer.lr=-1", "optimizer.lr=-1 is out of range", "give at least 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan is out of range", "give at least 0"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay=-1", "give at least 0"),
        ("optimizer.betas=[2,1]", "optimizer.betas=[2, 1]", "give at least 0 and below 1"),
        ("optimizer.betas=[0.9]", "optimizer.betas is [0.9]", "a list of 2, each a number"),
        ("scheduler.warmup=2", "scheduler.warmup=2", "give at least 0 and at most 1"),
        ("seed=-1", "seed=-1 is out of range", "give at least 0 and at most 4294967295"),
        ("seed=99999999999", "seed=99999999999 is out of range", "at most 4294967295"),
        ("overfit=0", "overfit=0 is out of range", "give at least 1"),
        ("dataset.workers=-1", "dataset.workers=-1", "give at least 0 and at most 64"),
        ("dataset.workers=9999", "dataset.workers=9999", "at most 64"),
        ("dataset.channels=0", "dataset.channels=0", "give at least 1"),
        ("dataset.channels=2", "has 3 channels; the network takes 2", "dataset.channels=3"),
        ("dataset.normalize=foo", "dataset.normalize=foo is not known", "one of unit, imagenet"),
        ("dataset.image_size=huge", "image_size='huge'", "give a whole number from 1"),
        (
            "dataset.image_size=100",
            "model gated_axial_unet: image size 100 x 100",
            "96 x 96 or 104 x 104",
        ),
        ("model.heads=0", "model.heads=0", "give at least 1"),
        ("model.heads=3", "out_channels=16 is not a multiple", "see model in the config"),
        ("model.depths=[]", "model.depths=[]", "give at least 1"),
        ("model.width_factor=0", "model.width_factor=0", "give above 0"),
        ("model.position=foo", "model.position is 'foo'", "not one of none, plain, gated"),
        ("model.classes=5", "model.classes=5 differs from the dataset's 2", "leave it out"),
        ("model.weights=nope.pt", "there is no file nope.pt", "checkpoint of medt"),
        ("model._target_=nope.Net", "there is no model nope.Net", "folder that has nope,"),
        ("loss._target_=foo.bar", "there is no loss foo.bar", "or set PYTHONPATH"),
        ("loss.class_weights=[-1,1]", "class_weights", "give"),
        (
            "augmentation.geometry.vertical_flip.p=2",
            "vertical_flip.p=2: Input should be",
            "see alb",
        ),
        ("augmentation.probability=1", "augmentation.probability", "horizontal_flip.p and"),
        ("augmentation.geometry.vertical_flip.q=1", "vertical_flip.q", "vertical_flip.p"),
        ("augmentation.geometry=null", "augmentation.geometry holds no", "a list or a mapping"),
        ("trainer.epochs=0", "trainer.epochs=0 is out of range", "give at least 1"),
        ("trainer.accumulate=0", "trainer.accumulate=0 is out of range", "give at least 1"),
        ("trainer.ema=2", "trainer.ema=2.0 is out of range", "between 0 and 1, or null"),
        ("trainer.clip_norm=0", "trainer.clip_norm=0.0", "give above 0, or null"),
        ("trainer.monitor=dise", "trainer.monitor=dise", "one of dice, iou, loss"),
        ("trainer.batch_size=7", "trainer.batch_size=7 is larger", "give at most 6"),
        ("trainer.device=cuda:7", "no device cuda:7", "use auto or cpu"),
        ("trainer.device=gpu", "no device gpu", "use auto, cpu, cuda"),
        ("resume=nowhere", "there is no run at nowhere", "give a run folder"),
    ],
)
def test_a_wrong_setting(refused, tmp_path, override, culprit, hint):
    refused(train.main, tiny_training(tmp_path, override), culprit, hint)


class TestPredictAndEvaluate:
    @pytest.mark.parametrize(
        ("override", "culprit", "hint"),
        [
            ("input=nowhere", "no file or folder nowhere", "check the path"),
            ("input=pyproject.toml", "pyproject.toml", "check the path"),
            ("values=[0,1,2]", "3 values, but there are 2 classes", "one pixel value per class"),
            ("values=[0,70000]", "cannot be stored in a mask", "0..65535"),
            ("device=cuda", "no device cuda", "use auto or cpu"),
            ("outptu=x", "no key outptu", "did you mean output?"),
            ("mode=???", "mode has no value", "choose one of resize, sliding_window"),
            ("input=~nobody-has-this-name/a b", "no file or folder ~nobody-has", "check the path"),
            ("input=" + "x y" * 2000, "File name too long", "check the path"),
        ],
    )
    def test_a_wrong_setting_of_predict(
        self, refused, tiny_run, tmp_path, monkeypatch, override, culprit, hint
    ):
        monkeypatch.chdir(tmp_path)
        given = [f"checkpoint={tiny_run}/checkpoints/best.pt", f"output={tmp_path}/masks"]
        given += [f"input={TINY}/images"] * (not override.startswith("input"))
        refused(predict.main, [*given, override], culprit, hint)

    @pytest.mark.parametrize(
        ("override", "culprit", "hint"),
        [
            ("split=exam", "no cases in split 'exam'", "there is: train (6), val (2), test (2)"),
            ("protocol=papre", "protocol=papre is not known", "did you mean paper"),
            ("batch_size=0", "batch_size=0 is out of range", "give at least 1"),
            ("device=cuda", "no device cuda", "use auto or cpu"),
            ("dataset.root=/elsewhere", "dataset.* needs dataset=NAME", "dataset=glas"),
            ("checkpoint=[" + "x" * 5000 + "]", "xxx: File name too long", "check the path"),
            ("-m", "--multirun is for train.py only", "run evaluate.py for each value"),
        ],
    )
    def test_a_wrong_setting_of_evaluate(self, refused, tiny_run, override, culprit, hint):
        before = files_below(tiny_run)
        checkpoint = f"checkpoint={tiny_run}/checkpoints/best.pt"
        refused(evaluate.main, [checkpoint, override], culprit, hint)
        assert files_below(tiny_run) == before
