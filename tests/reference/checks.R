# Overdispersion, zero inflation and collinearity by performance, and generalised variance inflation by car; writes checks.json.
# Models by lme4 where it can, else by glmmTMB; covariances of a generalised model's coefficients always by glmmTMB, whose Hessian is exact.
# Usage: Rscript checks.R <folder of data sets> <output>
suppressMessages({library(lme4); library(glmmTMB); library(performance); library(car); library(jsonlite)})
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
tight <- glmerControl(optimizer = "bobyqa", calc.derivs = FALSE, optCtrl = list(rhoend = 1e-9, maxfun = 1e6), tolPwrss = 1e-13)
linear <- lmerControl(calc.derivs = FALSE, optCtrl = list(xtol_abs = 1e-12, ftol_abs = 1e-12, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 1e5))
engines <- list(
  gaussian = function(f, data) lmer(f, data, control = linear),
  binomial = function(f, data) glmer(f, data, family = binomial, control = tight),
  poisson = function(f, data) glmer(f, data, family = poisson, control = tight),
  negative_binomial = function(f, data) glmmTMB(f, data, family = nbinom2),
  negative_binomial1 = function(f, data) glmmTMB(f, data, family = nbinom1)
)
relatives <- list(binomial = binomial, poisson = poisson, negative_binomial = nbinom2, negative_binomial1 = nbinom1)
case <- function(dataset, formula, family, rows = NULL) {
  data <- read(dataset)
  if (!is.null(rows)) data <- data[eval(parse(text = rows), data), ]
  data$row <- factor(seq_len(nrow(data)))
  fit <- suppressMessages(suppressWarnings(engines[[family]](as.formula(formula), data)))
  counts <- family != "gaussian"
  found <- list(dataset = dataset, formula = formula, family = family, rows = rows)
  if (counts) found$overdispersion <- unclass(check_overdispersion(fit))[c("chisq_statistic", "dispersion_ratio", "residual_df", "p_value")]
  if (counts && family != "binomial") {
    zeros <- unclass(check_zeroinflation(fit))
    found$zeros <- zeros[c("predicted.zeros", "observed.zeros", "ratio")]
  }
  if (counts) fit <- glmmTMB(as.formula(formula), data, family = relatives[[family]])
  collinear <- suppressWarnings(tryCatch(check_collinearity(fit), error = function(e) NULL))
  if (!is.null(collinear)) {
    found$collinearity <- list(term = I(collinear$Term), vif = I(collinear$VIF))
    if (!inherits(fit, "glmmTMB")) {
      v <- vif(fit)
      found$car <- if (is.matrix(v)) list(gvif = I(unname(v[, 1])), df = I(unname(v[, 2])), factor = I(unname(v[, 3]))) else list(gvif = I(unname(v)))
    }
  }
  found
}
cases <- list(
  case("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial"),
  case("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd) + (1 | row)", "binomial"),
  case("grouseticks", "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION)", "poisson"),
  case("grouseticks", "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)", "poisson"),
  case("grouseticks", "TICKS ~ YEAR * cHEIGHT + (1 | BROOD)", "poisson"),
  case("Salamanders", "count ~ spp + mined + cover + DOP + (1 | site)", "poisson"),
  case("Salamanders", "count ~ spp + mined + cover + DOP + (1 | site)", "negative_binomial"),
  case("Salamanders", "count ~ spp * mined + (1 | site)", "negative_binomial1"),
  case("sleepstudy", "Reaction ~ Days + I(Days^2) + (Days | Subject)", "gaussian"),
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", "gaussian"),
  case("cake", "angle ~ recipe + temp + (1 | recipe:replicate)", "gaussian"),
  case("Orthodont", "distance ~ age + Sex + (age | Subject)", "gaussian"),
  case("school", "extro ~ open + agree + social + (1 | class)", "gaussian", rows = "school == 'IV'")
)
write_json(cases, args[2], digits = NA, auto_unbox = TRUE, null = "null", pretty = TRUE)
