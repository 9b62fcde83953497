"""A net among scikit-learn's tools: scaled digits, its settings searched for by cross-validation."""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import optim
from layerwise.estimators import NetClassifier

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0, help="decides the split, the weights and the order (default 0)")
parser.add_argument("--epochs", type=int, default=40, help="rounds of training at most (default 40)")
arguments = parser.parse_args()

x, y = load_digits(return_X_y=True)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
y = [names[digit] for digit in y]  # labels may be anything
x, x_test, y, y_test = train_test_split(x, y, test_size=450, random_state=arguments.seed, stratify=y)

net = NetClassifier(
    hidden_layer_sizes=(64,),
    activation="gelu",
    optim=optim.Clip(optim.AdamW(), norm=1.0),
    max_iter=arguments.epochs,
    random_state=arguments.seed,
)
grid = {
    "netclassifier__dropout": [0.0, 0.3],
    "netclassifier__optim__lr": [0.001, 0.005],  # of the AdamW within
}
search = GridSearchCV(make_pipeline(StandardScaler(), net), grid, cv=3)
search.fit(x, y)

scores = zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
for settings, score in sorted(scores, key=lambda pair: pair[1]):
    shown = ", ".join(f"{name.removeprefix('netclassifier__')}={value}" for name, value in settings.items())
    print(f"{score:.1%} in cross-validation: {shown}")
print(f"{search.score(x_test, y_test):.1%} of the {len(y_test)} held-out digits are read right by the last of these")
