"""The names that a job file may `use`, by kind, and what they stand for.

Only names stand here: nothing is imported until one is asked for. Other packages add names by entry
points; a user's own code is named as ``package.module:Name``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from hanse.core.errors import HanseError, MissingExtraError, SettingError, did_you_mean
from hanse.data.catalogue import PARTITIONERS, SETS
from hanse.jobs.own_modules import import_own

Kind = Literal[
    "aggregator",
    "attack",
    "cohort",
    "correction",
    "data",
    "estimator",
    "graph",
    "loss",
    "mechanism",
    "mixer",
    "model",
    "objective",
    "optimizer",
    "partition",
    "perturbation",
    "preprocess",
    "rule",
    "schedule",
    "stage",
    "staleness",
    "stepping",
    "strategy",
    "task",
]
"""What can be chosen by `use`."""

NAMES: Mapping[Kind, Mapping[str, str]] = {
    "aggregator": {
        "homomorphic_sum": "hanse.aggregators.homomorphic_sum:HomomorphicSum",
        "light_sum": "hanse.aggregators.light_sum:LightSum",
        "mean": "hanse.aggregators.mean:Mean",
        "robust": "hanse.aggregators.robust.aggregator:Robust",
        "secure_sum": "hanse.aggregators.secure_sum:SecureSum",
        "sum": "hanse.aggregators.sum:Sum",
        "sums_of_groups": "hanse.aggregators.robust.sums_of_groups:SumsOfGroups",
    },
    "attack": {
        "alie": "hanse.attacks.alie:ALIE",
        "backdoor": "hanse.attacks.backdoor:Backdoor",
        "distributed_backdoor": "hanse.attacks.distributed_backdoor:DistributedBackdoor",
        "fang": "hanse.attacks.fang:FangAdaptive",
        "free_rider": "hanse.attacks.free_rider:FreeRider",
        "gaussian_noise": "hanse.attacks.gaussian_noise:GaussianNoise",
        "ipm": "hanse.attacks.ipm:IPM",
        "label_flip": "hanse.attacks.labels:LabelFlip",
        "min_max": "hanse.attacks.min_max:MinMax",
        "model_replacement": "hanse.attacks.model_replacement:ModelReplacement",
        "noisy_labels": "hanse.attacks.labels:NoisyLabels",
        "scaled": "hanse.attacks.multiples:Scaled",
        "sign_flip": "hanse.attacks.multiples:SignFlip",
    },
    "cohort": {
        "available": "hanse.rounds.selection.available:Available",
        "by_examples": "hanse.rounds.selection.by_examples:ByExamples",
        "cyclic": "hanse.rounds.selection.cyclic:Cyclic",
        "everyone": "hanse.rounds.selection.everyone:Everyone",
        "fixed": "hanse.rounds.selection.fixed:Fixed",
        "oort": "hanse.rounds.selection.oort:Oort",
        "poisson": "hanse.rounds.selection.poisson:Poisson",
        "power_of_choice": "hanse.rounds.selection.power_of_choice:PowerOfChoice",
        "power_of_choice_stale": "hanse.rounds.selection.power_of_choice:StalePowerOfChoice",
        "separated": "hanse.rounds.selection.separated:Separated",
        "stratified": "hanse.rounds.selection.stratified:Stratified",
        "uniform": "hanse.rounds.selection.uniform:Uniform",
    },
    "correction": {
        "adaptive_proximal": "hanse.core.corrections.proximal:AdaptiveProximal",
        "agnostic_weight": "hanse.core.corrections.agnostic_weight:AgnosticWeight",
        "control_variates": "hanse.core.corrections.control_variates:ControlVariates",
        "curvature_pull": "hanse.core.corrections.curvature_pull:CurvaturePull",
        "dynamic_regularizer": "hanse.core.corrections.dynamic_regularizer:DynamicRegularizer",
        "fair_share": "hanse.core.corrections.fair_share:FairShare",
        "frozen_adam": "hanse.core.corrections.frozen_moments:FrozenAdam",
        "frozen_momentum": "hanse.core.corrections.frozen_moments:FrozenMomentum",
        "normalized": "hanse.core.corrections.normalized:Normalized",
        "proximal": "hanse.core.corrections.proximal:Proximal",
    },
    "data": SETS,
    "estimator": {
        "elastic_net": "sklearn.linear_model:ElasticNet",
        "lasso": "sklearn.linear_model:Lasso",
        "linear_regression": "sklearn.linear_model:LinearRegression",
        "linear_svc": "sklearn.svm:LinearSVC",
        "logistic_regression": "sklearn.linear_model:LogisticRegression",
        "perceptron": "sklearn.linear_model:Perceptron",
        "ridge": "sklearn.linear_model:Ridge",
        "sgd_classifier": "sklearn.linear_model:SGDClassifier",
        "sgd_regressor": "sklearn.linear_model:SGDRegressor",
    },
    "graph": {
        "complete": "hanse.strategies.graphs:Complete",
        "exponential": "hanse.strategies.graphs:Exponential",
        "random_regular": "hanse.strategies.graphs:RandomRegular",
        "ring": "hanse.strategies.graphs:Ring",
    },
    "loss": {
        "absolute_error": "hanse.tasks.losses:AbsoluteError",
        "huber": "hanse.tasks.losses:Huber",
        "squared_error": "hanse.tasks.losses:SquaredError",
    },
    "mechanism": {
        "banded": "hanse.pipeline.correlated:BandedNoise",
        "dp_sgd": "hanse.pipeline.dp_sgd:DPSGD",
        "distributed": "hanse.pipeline.distributed:DistributedNoise",
        "gaussian": "hanse.pipeline.gaussian:CentralGaussian",
        "tree": "hanse.pipeline.correlated:TreeNoise",
    },
    "mixer": {
        "bucketing": "hanse.aggregators.robust.mixing:Bucketing",
        "nearest_neighbours": "hanse.aggregators.robust.mixing:NearestNeighbours",
    },
    "model": {
        "char_lstm": "hanse.tasks.models.char_lstm:CharLSTM",
        "lenet": "hanse.tasks.models.lenet:LeNet",
        "linear": "hanse.tasks.models.linear:Linear",
        "lora_transformer": "hanse.tasks.models.lora_transformer:LoraTransformer",
        "mcmahan_cnn": "hanse.tasks.models.mcmahan_cnn:McMahanCNN",
        "mlp": "hanse.tasks.models.mlp:MLP",
        "resnet": "hanse.tasks.models.resnet:ResNet",
        "two_nn": "hanse.tasks.models.two_nn:TwoNN",
    },
    "objective": {"model_contrast": "hanse.core.objectives:ModelContrast"},
    "optimizer": {
        "adam": "hanse.core.optimizers:Adam",
        "adamw": "hanse.core.optimizers:AdamW",
        "sgd": "hanse.core.optimizers:SGD",
    },
    "partition": PARTITIONERS,
    "perturbation": {
        "fgsm": "hanse.core.adversarial:FGSM",
        "pgd": "hanse.core.adversarial:PGD",
    },
    "preprocess": {
        "scale": "hanse.data.preprocessing:Scale",
        "standardize": "hanse.data.preprocessing:Standardize",
    },
    "rule": {
        "average": "hanse.aggregators.robust.average:Average",
        "bulyan": "hanse.aggregators.robust.bulyan:Bulyan",
        "centred_clipping": "hanse.aggregators.robust.clipping:CentredClipping",
        "flame": "hanse.aggregators.robust.flame:Flame",
        "fltrust": "hanse.aggregators.robust.fltrust:FLTrust",
        "foolsgold": "hanse.aggregators.robust.foolsgold:FoolsGold",
        "geometric_median": "hanse.aggregators.robust.geometric_median:GeometricMedian",
        "krum": "hanse.aggregators.robust.krum:Krum",
        "median": "hanse.aggregators.robust.columns:Median",
        "multi_krum": "hanse.aggregators.robust.krum:MultiKrum",
        "norm_bound": "hanse.aggregators.robust.clipping:NormBound",
        "trimmed_mean": "hanse.aggregators.robust.columns:TrimmedMean",
    },
    "schedule": {
        "constant": "hanse.core.schedules:Constant",
        "cosine": "hanse.core.schedules:Cosine",
        "exponential": "hanse.core.schedules:Exponential",
        "step": "hanse.core.schedules:Step",
    },
    "stage": {
        "clip": "hanse.pipeline.clip:Clip",
        "count_sketch": "hanse.pipeline.count_sketch:CountSketch",
        "federated_dropout": "hanse.pipeline.federated_dropout:FederatedDropout",
        "freeze": "hanse.pipeline.freeze:Freeze",
        "low_rank": "hanse.pipeline.low_rank:LowRank",
        "local_gaussian": "hanse.pipeline.local_noise:LocalGaussian",
        "local_laplace": "hanse.pipeline.local_noise:LocalLaplace",
        "modular": "hanse.pipeline.modular:Modular",
        "quantize": "hanse.pipeline.quantize:Quantize",
        "random_k": "hanse.pipeline.sparsify:RandomK",
        "rotate": "hanse.pipeline.rotate:Rotate",
        "sign": "hanse.pipeline.sign:Sign",
        "subspace": "hanse.pipeline.subspace:Subspace",
        "top_k": "hanse.pipeline.sparsify:TopK",
        "zstd": "hanse.pipeline.entropy:Zstd",
    },
    "staleness": {
        "constant": "hanse.rounds.staleness:ConstantStaleness",
        "hinge": "hanse.rounds.staleness:HingeStaleness",
        "polynomial": "hanse.rounds.staleness:PolynomialStaleness",
    },
    "stepping": {
        "meta": "hanse.strategies.per_fedavg:MetaSteps",
        "mixed": "hanse.strategies.apfl:MixedSteps",
        "moreau": "hanse.strategies.pfedme:MoreauSteps",
    },
    "strategy": {
        "afl": "hanse.strategies.afl:AFL",
        "apfl": "hanse.strategies.apfl:APFL",
        "clustered": "hanse.strategies.clustered:ClusteredFL",
        "cyclic": "hanse.strategies.cyclic:CyclicTransfer",
        "ditto": "hanse.strategies.ditto:Ditto",
        "fedadagrad": "hanse.strategies.fedadagrad:FedAdagrad",
        "fedadam": "hanse.strategies.fedadam:FedAdam",
        "fedasync": "hanse.strategies.fedasync:FedAsync",
        "fedavg": "hanse.strategies.fedavg:FedAvg",
        "fedavgm": "hanse.strategies.fedavgm:FedAvgM",
        "fedbn": "hanse.strategies.fedbn:FedBN",
        "fedbuff": "hanse.strategies.fedbuff:FedBuff",
        "fedcurv": "hanse.strategies.fedcurv:FedCurv",
        "feddyn": "hanse.strategies.feddyn:FedDyn",
        "fednova": "hanse.strategies.fednova:FedNova",
        "fedper": "hanse.strategies.fedper:FedPer",
        "fedprox": "hanse.strategies.fedprox:FedProx",
        "fedrep": "hanse.strategies.fedrep:FedRep",
        "fedsgd": "hanse.strategies.fedsgd:FedSGD",
        "fedyogi": "hanse.strategies.fedyogi:FedYogi",
        "fine_tuning": "hanse.strategies.fine_tuning:FineTuning",
        "gossip": "hanse.strategies.gossip:Gossip",
        "gradient_tracking": "hanse.strategies.gradient_tracking:GradientTracking",
        "hierarchical": "hanse.strategies.hierarchical:Hierarchical",
        "ifca": "hanse.strategies.ifca:IFCA",
        "local_only": "hanse.strategies.local_only:LocalOnly",
        "mimelite": "hanse.strategies.mimelite:MimeLite",
        "moon": "hanse.strategies.moon:MOON",
        "newton": "hanse.strategies.newton:FederatedNewton",
        "per_fedavg": "hanse.strategies.per_fedavg:PerFedAvg",
        "pfedme": "hanse.strategies.pfedme:PFedMe",
        "qfedavg": "hanse.strategies.qfedavg:QFedAvg",
        "reptile": "hanse.strategies.reptile:Reptile",
        "scaffold": "hanse.strategies.scaffold:SCAFFOLD",
    },
    "task": {
        "classification": "hanse.tasks.classification:Classification",
        "estimator": "hanse.tasks.estimator:Estimator",
        "next_character": "hanse.tasks.language:NextCharacter",
        "regression": "hanse.tasks.regression:Regression",
    },
}
"""Kind to name to ``module:object``."""

GROUPS: Mapping[Kind, str] = {
    "aggregator": "hanse.aggregators",
    "attack": "hanse.attacks",
    "cohort": "hanse.cohorts",
    "correction": "hanse.corrections",
    "data": "hanse.data",
    "estimator": "hanse.estimators",
    "graph": "hanse.graphs",
    "loss": "hanse.losses",
    "mechanism": "hanse.mechanisms",
    "mixer": "hanse.mixers",
    "model": "hanse.models",
    "objective": "hanse.objectives",
    "optimizer": "hanse.optimizers",
    "partition": "hanse.partitioners",
    "perturbation": "hanse.perturbations",
    "preprocess": "hanse.preprocessing",
    "rule": "hanse.rules",
    "schedule": "hanse.schedules",
    "stage": "hanse.stages",
    "staleness": "hanse.staleness",
    "stepping": "hanse.steppings",
    "strategy": "hanse.strategies",
    "task": "hanse.tasks",
}
"""Kind to the entry point group by which other packages add names."""

_EXTRAS = {
    "PIL": "images",
    "jinja2": "report",
    "matplotlib": "report",
    "pandas": "tables",
    "pyarrow": "tables",
    "sklearn": "sklearn",
    "torch": "torch",
}


def known_names(kind: Kind) -> dict[str, str]:
    """Name to ``module:object`` of a kind: Hanse's own, and what installed packages add.

    A package can't take over one of Hanse's names.
    """
    added = {point.name: point.value for point in entry_points(group=GROUPS[kind])}
    return {**added, **NAMES[kind]}


def find(kind: Kind, use: str, *, where: str, folder: Path | None = None) -> Any:
    """What a name stands for.

    Args:
      kind: What is being chosen.
      use: A known name, or ``package.module:Name``.
      where: Dotted path of the choice, for messages.
      folder: The job file's folder; modules beside the job file are found there.

    Raises:
      SettingError: Nothing of that name, or no such module or object.
      MissingExtraError: It needs an optional package.
    """
    path = path_of(kind, use, where=where)
    own = ":" in use
    return _import(path, where=where, folder=folder if own else None, own=own)


def path_of(kind: Kind, use: str, *, where: str) -> str:
    """``module:object`` that a name stands for; nothing is imported.

    Raises:
      SettingError: Nothing of that name.
    """
    if ":" in use:
        return use
    if use in NAMES[kind]:
        return NAMES[kind][use]  # what packages add is read from their files, a thirtieth of a second each time
    known = known_names(kind)
    if use not in known:
        raise SettingError(f"{where}.use", f"there is no {_word(kind)} called `{use}`", hint=did_you_mean(use, known))
    return known[use]


def name_of(kind: Kind, target: object) -> str:
    """The shortest `use` that names a class or function."""
    path = f"{getattr(target, '__module__', '?')}:{getattr(target, '__qualname__', '?')}"
    return next((name for name, found in NAMES[kind].items() if found == path), path)


def _import(path: str, *, where: str, folder: Path | None, own: bool) -> Any:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise SettingError(f"{where}.use", f"`{path}` names nothing", hint="wanted: package.module:Name")
    try:
        module = import_own(module_name, folder, where=where) if own else importlib.import_module(module_name)
    except HanseError:
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _EXTRAS:
            raise MissingExtraError(f"{where} = `{path}`", extra=_EXTRAS[package]) from error
        beside = f" beside the job file (in {folder}) or" if folder is not None else ""
        raise SettingError(f"{where}.use", f"no module `{error.name}`{beside} among installed packages") from error
    try:
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise SettingError(
            f"{where}.use", f"module `{module_name}` has no `{attribute}`", hint=did_you_mean(attribute, public)
        ) from error
    return found


def _word(kind: Kind) -> str:
    return {"data": "data set", "stage": "pipeline stage"}.get(kind, kind)
