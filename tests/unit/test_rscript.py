"""R scripts: those for lme4 are run and give our criterion; those for brms are in brms's grammar; the rest is refused in a sentence."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import FitError
from bayeslmm.families import FAMILIES
from bayeslmm.model import Model
from tests.support import reference_case, reference_dir


@cache
def has_lme4() -> bool:
    return shutil.which("Rscript") is not None and not subprocess.run(["Rscript", "-e", "library(lme4)"], capture_output=True).returncode


@pytest.fixture
def r() -> None:
    if not has_lme4():
        pytest.skip("needs R with lme4")


needs_r = pytest.mark.usefixtures("r")


def run(model: Model, folder: Path, **options: Any) -> dict[str, float]:
    """Run the script of a model by R; returns -2 log L (or the REML criterion) and the fixed effects."""
    model.frame.to_csv(folder / "data.csv", index=False)
    shown = 'cat("criterion", sprintf("%.12g", -2 * as.numeric(logLik(fit))), "\\n"); b <- fixef(fit)\n'
    shown += 'cat(paste(names(b), sprintf("%.12g", b), sep = "\\t"), sep = "\\n")\n'
    (folder / "fit.R").write_text(model.to_r("lme4", **options) + 'cat("----\\n"); ' + shown, encoding="utf8")
    done = subprocess.run(["Rscript", "fit.R"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.split("----\n")[1].splitlines()
    return {"criterion": float(first.split()[1]), **{line.split("\t")[0]: float(line.split("\t")[1]) for line in rest}}


def agree(model: Model, folder: Path, *, reml: bool = True) -> None:
    ours, theirs = bl.lmer(model, reml=reml), run(model, folder, reml=reml)
    assert theirs.pop("criterion") == pytest.approx(ours.criterion, abs=2e-4)
    assert list(theirs) == list(ours.fixef().index)
    np.testing.assert_allclose(list(theirs.values()), ours.fixef().to_numpy(), atol=2e-3 * np.sqrt(np.diag(ours.vcov())).max())


@needs_r
@pytest.mark.parametrize("reml", [True, False])
def test_sleepstudy_in_lme4(tmp_path: Path, reml: bool) -> None:
    agree(bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")), tmp_path, reml=reml)


@needs_r
def test_double_bars_of_either_dialect(tmp_path: Path) -> None:
    data = bl.load_dataset("sleepstudy")
    for dialect in ("lme4", "brms"):
        agree(bl.model("Reaction ~ Days + (Days || Subject)", data, dialect=dialect), tmp_path)


@needs_r
def test_cake_with_contrasts_and_nesting(tmp_path: Path) -> None:
    reference_dir()
    data = bl.load_dataset("cake")
    agree(bl.model("angle ~ recipe * temperature + (1 | recipe:replicate)", data, contrasts={"recipe": "sum"}), tmp_path)
    matrix = np.array([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])
    agree(bl.model("angle ~ recipe + temp + (1 | replicate/recipe)", data, contrasts={"recipe": matrix}), tmp_path)


@needs_r
def test_weights_offset_logical_and_missing(tmp_path: Path) -> None:
    reference_dir()
    data = bl.load_dataset("sleepstudy_x").assign(late=lambda frame: frame["Days"] >= 5)
    agree(bl.model("Reaction ~ Days * late + (1 | Subject)", data, weights="w", offset="off"), tmp_path)
    data.loc[3, "Reaction"] = np.nan
    data.loc[7, "w"] = 0.0
    with pytest.warns(bl.BayesLmmWarning):
        model = bl.model("Reaction ~ center(Days) + ns(Days, df = 2):late + offset(off) + (1 | Subject)", data, weights="w")
    assert "library(splines)" in model.to_r()
    assert "center <- function(x) x - mean(x)" in model.to_r()
    assert "d <- subset(d, w > 0)" in model.to_r()
    agree(model, tmp_path)


@needs_r
def test_names_and_levels_that_need_quoting(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"my y": rng.normal(size=60), "a-b": rng.normal(size=60), "g": np.tile(np.arange(10), 6)})
    data["kind of"] = pd.Categorical(rng.choice(['say "x"', "b, c", "NA's"], 60), ["b, c", 'say "x"', "NA's"])
    data["size"] = pd.Categorical(rng.choice([10, 9], 60), [10, 9])
    data["text"] = rng.choice(["Zebra", "ant", "09"], 60)
    data["my y"] += 2.0 * rng.normal(size=10)[data["g"]]
    agree(bl.model("`my y` ~ `a-b` + `kind of` + size + text + (1 | g)", data), tmp_path)


@needs_r
def test_a_binomial_model_of_glmer(tmp_path: Path) -> None:
    expected = reference_case("cbpp__g01")["Laplace"]
    model = bl.model("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), "binomial")
    theirs = run(model, tmp_path)
    assert theirs.pop("criterion") == pytest.approx(expected["minus2logLik"], abs=1e-3)
    assert theirs == pytest.approx(expected["fixef"], abs=5e-3)
    trials = bl.model("incidence | trials(size) ~ period + (1 | herd)", bl.load_dataset("cbpp"), "binomial")
    assert run(trials, tmp_path)["criterion"] == pytest.approx(expected["minus2logLik"], abs=1e-3)


@needs_r
def test_links_that_families_of_r_do_not_name(tmp_path: Path) -> None:
    data = bl.load_dataset("cbpp")
    model = bl.model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", data, "binomial", link="identity")
    assert 'family = binomial(link = make.link("identity"))' in model.to_r()
    assert 0.05 < run(model, tmp_path)["(Intercept)"] < 0.3


# brms ---------------------------------------------------------------------------------------------------------------------


def lines(model: Model) -> list[str]:
    return [line.strip().removesuffix(",") for line in model.to_r("brms").splitlines()]


def test_sleepstudy_in_brms() -> None:
    data = bl.load_dataset("sleepstudy")
    said = lines(
        bl.model(
            "Reaction ~ Days + (Days | Subject)",
            data,
            priors=bl.default_priors(bl.model("Reaction ~ Days + (Days | Subject)", data), "brms"),
        )
    )
    assert "bf(Reaction ~ 1 + Days + (1 + Days | Subject))" in said
    assert 'family = gaussian(link = "identity")' in said
    priors = said[said.index("priors <- c(") + 1 : said.index(")")]
    # brms::default_prior of this model (brms 2.18), flat slopes left out; sigma, sd: class-wide there
    assert priors == [
        'prior(student_t(3, 288.7, 59.3), class = "Intercept")',
        'prior(student_t(3, 0, 59.3), class = "sd", coef = "Intercept", group = "Subject")',
        'prior(student_t(3, 0, 59.3), class = "sd", coef = "Days", group = "Subject")',
        'prior(lkj(1), class = "cor", group = "Subject")',
        'prior(student_t(3, 0, 59.3), class = "sigma")',
    ]


def test_what_brms_writes_otherwise() -> None:
    data = bl.load_dataset("sleepstudy").assign(f=lambda frame: np.where(frame["Days"] > 4, "late", "early"))
    data["k"], data["n"], data["w"], data["e"] = 3, 5, 2.0, 0.5
    diagonal = lines(bl.model("Reaction ~ Days + (f || Subject)", data, dialect="brms"))
    assert "bf(Reaction ~ 1 + Days + (1 + f || Subject))" in diagonal
    counts = lines(bl.model("k | trials(n) ~ Days + (1 | Subject)", data, "binomial", weights="w", offset="e"))
    assert "bf(k | trials(n) + weights(w) ~ 1 + Days + (1 | Subject) + offset(e))" in counts or (
        "bf(k | trials(n) + weights(w) ~ 1 + Days + offset(e) + (1 | Subject))" in counts
    )
    pairs = lines(bl.model("cbind(k, n - k) ~ I(Days^2) + (1 | Subject)", data, "binomial"))
    assert "bf(k | trials(k + n - k) ~ 1 + I(Days^2) + (1 | Subject))" in pairs
    assert any('class = "b", coef = "IDaysE2"' in line for line in pairs)
    assert "bf(k | trials(1) ~ 1 + Days + (1 | Subject))" in lines(
        bl.model("k ~ Days + (1 | Subject)", data.assign(k=(data["Days"] > 4).astype(int)), "binomial")
    )
    two = lines(bl.model(bl.formula("Reaction ~ Days + (1 | Subject)", sigma="~ Days + (1 | Subject)"), data))
    assert "bf(Reaction ~ 1 + Days + (1 | Subject), sigma ~ 1 + Days + (1 | Subject))" in two
    assert any('class = "b", coef = "Days", dpar = "sigma"' in line for line in two)
    assert any('class = "sd", coef = "Intercept", group = "Subject", dpar = "sigma"' in line for line in two)


def test_a_prior_on_the_intercept_as_printed() -> None:
    data = bl.load_dataset("sleepstudy")
    raw = [bl.prior("normal(250, 50)", part="fixed", term="(Intercept)"), bl.prior("constant(1)", part="sd")]
    said = lines(bl.model("Reaction ~ Days + (1 | Subject)", data, priors=raw))
    assert "bf(Reaction ~ 0 + Intercept + Days + (1 | Subject))" in said
    assert 'prior(normal(250, 50), class = "b", coef = "Intercept")' in said
    assert 'prior(constant(1), class = "sd", coef = "Intercept", group = "Subject")' in said


def test_thresholds_of_an_ordered_response() -> None:
    data = bl.load_dataset("VerbAgg").head(300).assign(resp=lambda frame: frame["resp"].cat.as_unordered())
    model = bl.model("resp ~ Anger + (1 | item)", data, "cumulative")
    said = lines(model)
    assert 'd[["resp"]] <- factor(d[["resp"]], levels = c("no", "perhaps", "yes"), ordered = TRUE)' in said
    assert "bf(resp ~ 1 + Anger + (1 | item))" in said
    assert 'family = cumulative(link = "logit")' in said
    assert 'prior(student_t(3, 0, 2.5), class = "Intercept", coef = "1")' in said
    assert 'prior(student_t(3, 0, 2.5), class = "Intercept", coef = "2")' in said


def test_contrasts_in_brms() -> None:
    reference_dir()
    said = lines(bl.model("angle ~ recipe + (1 | replicate)", bl.load_dataset("cake"), contrasts={"recipe": "sum"}))
    assert 'contrasts(d[["recipe"]]) <- contr.sum(3)' in said
    assert any('coef = "recipe1"' in line for line in said)


# Refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "options", "peer", "message"),
    [
        ("Reaction ~ Days + (1 | Subject)", {"family": "student"}, "lme4", "no family 'student'"),
        ("Reaction ~ Days + (1 | Subject)", {"link": "softplus"}, "lme4", "no link 'softplus'"),
        ("Reaction ~ Days", {}, "lme4", "needs a random effect"),
        ("Reaction ~ Days + (1 | Subject)", {"weights": "w"}, "brms", "powers of the likelihood"),
        ("Reaction ~ Days + (1 | Subject)", {"weights": "w", "dialect": "brms"}, "lme4", "divide the residual variance"),
        ("Reaction ~ Days + cs(Days | Subject)", {}, "brms", "any form or none"),
        ("Reaction ~ Days + (1 | Subject)", {"weights": [1.0, 2.0] * 90}, "lme4", "the weights were given as an array"),
        ("Reaction ~ Days + (1 | Subject)", {"offset": [1.0, 2.0] * 90}, "brms", "the offset was given as an array"),
        ("Reaction ~ half(Days) + (1 | Subject)", {}, "lme4", r"half\(\) was registered in Python"),
        ("Reaction ~ Days + (1 | Subject)", {}, "nlme", "no script can be written for 'nlme'"),
    ],
)
def test_what_a_peer_cannot_express_is_refused_in_one_line(formula: str, options: dict[str, Any], peer: str, message: str) -> None:
    bl.register_transform("half", lambda x: x / 2)
    data = bl.load_dataset("sleepstudy").assign(w=2.0)
    with pytest.raises(FitError, match=message) as caught:
        bl.model(formula, data, **options).to_r(peer)
    assert "\n" not in str(caught.value)


def test_further_formulas_and_dropped_columns() -> None:
    data = bl.load_dataset("sleepstudy").assign(twice=lambda frame: 2.0 * frame["Days"])
    with pytest.raises(FitError, match="no formula for sigma"):
        bl.model(bl.formula("Reaction ~ Days + (1 | Subject)", sigma="~ Days"), data).to_r("lme4")
    with pytest.warns(bl.BayesLmmWarning):
        model = bl.model("Reaction ~ Days + twice + (1 | Subject)", data)
    with pytest.raises(FitError, match=r"combinations of others \(twice\)"):
        model.to_r("brms")


def test_structures_of_lme4_2() -> None:
    said = bl.model("Reaction ~ Days + cs(Days | Subject)", bl.load_dataset("sleepstudy")).to_r("lme4")
    assert 'stopifnot(packageVersion("lme4") >= "2.0.0")' in said
    assert "Reaction ~ 1 + Days + cs(Days | Subject)," in said


def test_every_family_says_how_R_spells_it() -> None:
    known = {"", "gaussian", "binomial", "poisson", "Gamma", "inverse.gaussian", "glmer.nb"}
    assert {family.r_lme4 for family in FAMILIES.values()} <= known
    without = {name for name, family in FAMILIES.items() if not family.r_brms}
    assert without <= {"negative_binomial1", "truncated_poisson", "truncated_negative_binomial"}


def test_bounds_and_joint_priors_in_brms() -> None:
    data = bl.load_dataset("sleepstudy").assign(x=np.arange(180.0) % 7)
    rows = [bl.prior("normal(0, 5)", part="fixed", lower=0), bl.prior("normal(0, 9)", part="aux", lower=1, upper=40)]
    bounded = lines(bl.model("Reaction ~ Days + x + (1 | Subject)", data, priors=rows))
    assert 'prior("", class = "b", lb = 0)' in bounded
    assert 'prior(normal(0, 5), class = "b", coef = "Days")' in bounded
    assert 'prior(normal(0, 9), class = "sigma", lb = 1, ub = 40)' in bounded
    horseshoe = lines(bl.model("Reaction ~ Days + x", data, priors=[bl.prior("horseshoe(1, par_ratio=0.1)", part="fixed")]))
    shown = "horseshoe(df=1, scale_global=1, df_global=1, scale_slab=2, df_slab=4, par_ratio=0.1)"
    assert [line for line in horseshoe if "horseshoe" in line] == [f'prior({shown}, class = "b")']
    one = [bl.prior("normal(0, 5)", part="fixed", term="x", lower=0)]
    with pytest.raises(FitError, match="bounds there are of all coefficients together"):
        bl.model("Reaction ~ Days + x", data, priors=one).to_r("brms")
    with pytest.raises(FitError, match="no bounds but zero"):
        bl.model("Reaction ~ Days + (1 | Subject)", data, priors=[bl.prior("normal(0, 5)", part="sd", upper=9)]).to_r("brms")
