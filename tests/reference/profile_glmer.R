# Profile-likelihood limits of generalised linear mixed models by lme4, on fine profiles of tight fits; writes profile_glmer.json.
# Usage: Rscript profile_glmer.R <folder of data sets> <output>
suppressMessages({library(lme4); library(jsonlite)})
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
case <- function(dataset, formula, family, nodes = 1L) {
  data <- read(dataset)
  control <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, calc.derivs = FALSE, optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
  fit <- eval(bquote(glmer(.(as.formula(formula)), data, family = .(as.name(family)), nAGQ = .(nodes), control = control)))
  walked <- suppressWarnings(profile(fit, signames = FALSE, delta = 0.15, alphamax = 0.02))
  limits <- suppressWarnings(confint(walked, level = 0.95))
  message(dataset, " ", formula)
  list(dataset = dataset, formula = formula, family = family, n_agq = nodes, level = 0.95, rows = I(rownames(limits)), limits = unname(limits))
}
cases <- list(
  case("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial"),
  case("cbpp", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "binomial", 9L),
  case("culcita", "predation ~ ttt + (1 | block)", "binomial"),
  case("grouseticks", "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION)", "poisson")
)
write_json(cases, args[2], digits = 10, auto_unbox = TRUE, null = "null", na = "null", pretty = FALSE)
