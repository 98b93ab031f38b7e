"""Writes tests/golden/labels/metrics.json: metrics of labels as scikit-learn and SciPy compute them.

pip install scikit-learn
python -m tests.golden.labels            # from the top of the checkout
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from scipy.stats import pearsonr
from sklearn import metrics


def main() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for classes, seen, n in ((2, 2, 40), (3, 3, 60), (5, 4, 30), (2, 1, 5)):  # some never occur
        labels = rng.integers(0, seen, n)
        predicted = np.where(rng.random(n) < 0.6, labels, rng.integers(0, seen, n))
        case: dict[str, Any] = {"classes": classes, "labels": labels.tolist(), "predicted": predicted.tolist()}
        scores = {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
            "micro_f1": metrics.f1_score(labels, predicted, average="micro"),
            "matthews": metrics.matthews_corrcoef(labels, predicted),
        }
        if classes == 2 and seen == 2:
            scores["f1"] = metrics.f1_score(labels, predicted)
        cases.append(case | {"scores": {name: float(score) for name, score in scores.items()}})
    y = rng.normal(3, 2, 25).round(3)
    x = (y + rng.normal(0, 2, 25)).round(3)
    scores = {"pearson": float(pearsonr(x, y)[0]), "loss": float(metrics.mean_squared_error(y, x))}
    whole = {
        "made_with": f"scikit-learn {sklearn.__version__}, scipy {scipy.__version__}",
        "classes": cases,
        "values": {"predicted": x.tolist(), "labels": y.tolist(), "scores": scores},
    }
    (Path(__file__).parent / "labels" / "metrics.json").write_text(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()
