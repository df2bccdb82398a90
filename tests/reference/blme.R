# Boundary-avoiding fits by blme, linear and generalised, on cases that are singular or nearly so; writes blme.json.
# The prior of Chung et al. (2013, 2015): gamma(2, 0) on the relative standard deviation of a single effect, Wishart with k + 2
# degrees of freedom and an infinite scale on the relative covariance matrix of k effects.
# Usage: Rscript blme.R <folder of data sets> <output>
suppressMessages({library(blme); library(jsonlite)})
args <- commandArgs(trailingOnly = TRUE)
read <- function(name) {
  described <- fromJSON(file.path(args[1], "datasets.json"), simplifyVector = FALSE)[[name]]$columns
  data <- read.csv(file.path(args[1], paste0(name, ".csv")), na.strings = "NA", colClasses = NA)
  for (column in names(described)) {
    kind <- described[[column]]$type
    if (kind %in% c("factor", "ordered")) data[[column]] <- factor(data[[column]], levels = unlist(described[[column]]$levels), ordered = kind == "ordered")
  }
  data
}
# (blme's BOBYQA stops short of its own optimum where theta has several entries, with a warning about the gradient; Nelder-Mead does not.)
tight <- lmerControl(optimizer = "Nelder_Mead", restart_edge = FALSE, calc.derivs = FALSE, optCtrl = list(FtolAbs = 1e-13, FtolRel = 1e-15, XtolRel = 1e-10, maxfun = 1e5))
case <- function(dataset, formula, priors, reml = TRUE, rows = NULL) {
  data <- read(dataset)
  if (!is.null(rows)) data <- data[eval(parse(text = rows), data), ]
  fit <- eval(bquote(blmer(.(as.formula(formula)), data, REML = .(reml), control = tight, fixef.prior = NULL, resid.prior = NULL, cov.prior = .(priors))))
  list(dataset = dataset, formula = formula, reml = reml, rows = rows, theta = I(unname(getME(fit, "theta"))), sigma = sigma(fit),
       fixef = I(unname(fixef(fit))), se = I(unname(sqrt(diag(as.matrix(vcov(fit)))))))
}
general <- function(dataset, formula, family, prior) {
  data <- read(dataset)
  control <- glmerControl(optimizer = "Nelder_Mead", calc.derivs = FALSE, tolPwrss = 1e-10, optCtrl = list(FtolAbs = 1e-13, FtolRel = 1e-15, XtolRel = 1e-10, maxfun = 1e5))
  fit <- eval(bquote(bglmer(.(as.formula(formula)), data, family = .(as.name(family)), control = control, fixef.prior = NULL, cov.prior = .(prior))))
  list(dataset = dataset, formula = formula, family = family, theta = I(unname(getME(fit, "theta"))), fixef = I(unname(fixef(fit))))
}
one <- quote(gamma(shape = 2, rate = 0, common.scale = TRUE, posterior.scale = "sd"))
plain <- quote(gamma(shape = 2, rate = 0, posterior.scale = "sd"))
two <- quote(wishart(df = level.dim + 2, scale = Inf, common.scale = TRUE, posterior.scale = "cov"))
cases <- list(
  case("Dyestuff2", "Yield ~ 1 + (1 | Batch)", one),
  case("Dyestuff2", "Yield ~ 1 + (1 | Batch)", one, reml = FALSE),
  case("Dyestuff", "Yield ~ 1 + (1 | Batch)", one),
  case("sleepstudy", "Reaction ~ Days + (Days | Subject)", two),
  case("sleepstudy", "Reaction ~ Days + (Days | Subject)", two, reml = FALSE),
  case("sleepstudy", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", one),
  case("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", one),
  case("Pastes", "strength ~ 1 + (1 | batch/cask)", one),
  case("school", "extro ~ open + agree + social + (1 | class)", one, rows = "school == 'IV'"),
  case("Orthodont", "distance ~ age + (age | Subject)", two)
)
generalised <- list(
  general("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", plain),
  general("grouseticks", "TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)", "poisson", plain),
  general("cbpp", "cbind(incidence, size - incidence) ~ 1 + (1 | herd) + (1 | period)", "binomial", plain)
)
write_json(list(linear = cases, generalised = generalised), args[2], digits = NA, auto_unbox = TRUE, null = "null", pretty = TRUE)
