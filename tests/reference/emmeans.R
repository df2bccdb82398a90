# Marginal means and contrasts by emmeans on cases that the stored results lack; writes emmeans.json.
# (Without consecutive contrasts of an empty cell: emmeans gives no number for any of them there.)
# Usage: Rscript emmeans.R <folder of data sets> <output>
suppressMessages({library(lmerTest); library(jsonlite); library(emmeans); library(mvtnorm)})
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
tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-12, ftol_abs = 1e-12, xtol_rel = 1e-14, ftol_rel = 1e-15, maxeval = 1e5))
ask <- function(specs, by = NULL, contrast = NULL, adjust = NULL, ddf = "kenward-roger", at = NULL)
  list(specs = I(specs), by = by, contrast = contrast, adjust = adjust, ddf = ddf, at = at)
answer <- function(fit, q) {
  set.seed(1)
  call <- list(fit, specs = q$specs, by = q$by, lmer.df = q$ddf)
  if (!is.null(q$at)) call$at <- q$at
  means <- suppressMessages(do.call(emmeans, call))
  if (!is.null(q$contrast)) {
    call <- list(means, method = q$contrast)
    if (!is.null(q$adjust)) call$adjust <- q$adjust
    means <- suppressMessages(do.call(contrast, call))
  }
  call <- list(means, infer = c(TRUE, TRUE))
  if (is.null(q$contrast) && !is.null(q$adjust)) call$adjust <- q$adjust
  found <- as.data.frame(suppressMessages(do.call(summary, call)))
  labels <- found[seq_len(match("SE", names(found)) - 2)]
  labels[] <- lapply(labels, as.character)
  numbers <- found[match("SE", names(found)) - 1 + 0:6]
  c(q, list(names = I(names(labels)), labels = unname(lapply(labels, I)), values = unname(as.matrix(numbers))))
}
case <- function(dataset, formula, questions, drop = integer(0), contrasts = NULL, reml = TRUE, weights = NULL) {
  data <- read(dataset)
  if (length(drop)) data <- data[-drop, ]
  f <- as.formula(formula)
  w <- if (!is.null(weights)) as.name(weights)
  fit <- suppressMessages(eval(bquote(lmer(.(f), data = data, contrasts = contrasts, REML = reml, weights = .(w), control = tight))))
  list(dataset = dataset, formula = formula, drop = I(drop - 1L), contrasts = contrasts, reml = reml, weights = weights,
       questions = lapply(questions, function(q) answer(fit, q)))
}
odd <- seq(3, 270, by = 7)
cell <- which(with(read("cake"), recipe == "B" & temperature == "185"))
fifth <- seq(2, 180, by = 5)
both <- list(
  ask("recipe"), ask("recipe", ddf = "satterthwaite"), ask("recipe", ddf = "asymptotic"), ask("recipe", adjust = "bonferroni"),
  ask("recipe", adjust = "sidak"), ask("recipe", "temperature"), ask(c("temperature", "recipe")),
  ask("recipe", contrast = "pairwise"), ask("recipe", contrast = "pairwise", ddf = "asymptotic"),
  ask("recipe", contrast = "pairwise", adjust = "sidak"), ask("recipe", contrast = "revpairwise", adjust = "holm"),
  ask("recipe", "temperature", contrast = "pairwise"), ask("temperature", "recipe", contrast = "trt.vs.ctrl"),
  ask("temperature", contrast = "trt.vs.ctrlk"), ask("temperature", contrast = "trt.vs.ctrl", ddf = "asymptotic"),
  ask("temperature", contrast = "eff"), ask("temperature", "recipe", contrast = "poly"), ask("temperature", contrast = "poly", adjust = "tukey"),
  ask("temperature", contrast = "consec", adjust = "fdr"), ask("temperature", contrast = "consec"),
  ask(c("recipe", "temperature"), contrast = "trt.vs.ctrl", at = list(temperature = c("185", "175"))),
  ask("recipe", contrast = list(first = c(1, -0.5, -0.5), sum = c(1, 1, 1)), adjust = "bonferroni")
)
small <- list(ask("recipe"), ask("recipe", contrast = "pairwise"))
late <- list(
  ask("sex"), ask("sex", "late"), ask(c("sex", "late"), contrast = "pairwise"), ask("sex", contrast = "pairwise"),
  ask("sex", "Days", at = list(Days = c(0, 9)), contrast = "pairwise"), ask("sex", at = list(Days = c(1, 2, 6))), ask("Days"),
  ask("Days", at = list(Days = c(-1, 0, 2)), contrast = "pairwise", ddf = "satterthwaite")
)
cases <- list(
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", both, drop = odd),
  case("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)", both[-c(7, 20)], drop = cell),
  case("cake", "angle ~ temperature * recipe + (1 | recipe:replicate)", small, drop = odd, contrasts = list(recipe = "contr.sum", temperature = "contr.helmert")),
  case("cake", "angle ~ 0 + recipe + temperature + (1 | recipe:replicate)", small, drop = odd),
  case("cake", "angle ~ recipe + factor(temp) + (1 | recipe:replicate)", c(small, list(ask("temp"), ask("temp", contrast = "consec", adjust = "none"))), drop = odd),
  case("cake", "angle ~ recipe * log(temp) + I(temp^2) + (1 | replicate)", c(small, list(ask("recipe", "temp", contrast = "pairwise", at = list(temp = c(180, 210))))), drop = odd),
  case("cake", "angle ~ recipe * temp + (1 | recipe:replicate)", both[1:3], drop = odd, reml = FALSE),
  case("cake", "angle ~ temperature + recipe * temp + (1 | recipe:replicate)", c(small, list(ask("temperature"), ask("temperature", contrast = "pairwise"))), drop = odd),
  case("sleepstudy_x", "Reaction ~ sex * late * Days + (Days | Subject)", late, drop = fifth),
  case("sleepstudy_x", "Reaction ~ poly(Days, 2) * sex + (Days || Subject)", late[c(1, 4, 5, 6)], drop = fifth),
  case("sleepstudy_x", "Reaction ~ sex / Days + (1 | Subject)", late[c(1, 4)], drop = fifth),
  case("sleepstudy_x", "Reaction ~ sex + late + Days + (1 | Subject)", list(ask("sex", ddf = "satterthwaite"), ask("late", contrast = "pairwise", ddf = "satterthwaite")), drop = fifth, weights = "w"),
  case("sleepstudy_x", "Reaction ~ sex + Days + offset(off) + (1 | Subject)", list(ask("sex"), ask("sex", contrast = "eff"), ask("sex", contrast = "pairwise"))),
  case("sleepstudy_x", "Reaction ~ sex * (Days > 4) + (1 | Subject)", list(ask("sex"), ask("sex", "Days", at = list(Days = c(2, 7)), contrast = "pairwise")))
)
chain <- diag(5)
for (i in 1:4) chain[i, i + 1] <- chain[i + 1, i] <- -0.5
outside <- function(x, df, corr) { set.seed(1); 1 - as.numeric(pmvt(rep(-x, nrow(corr)), rep(x, nrow(corr)), df = df, corr = corr, algorithm = GenzBretz(maxpts = 1e6, abseps = 1e-7))) }
exact <- list()
for (df in c(3, 20, 0)) for (x in c(0.8, 1.5, 2.5, 3.8)) for (name in c("chain", "half"))
  exact <- c(exact, list(list(x = x, df = df, correlation = name, p = outside(x, df, if (name == "chain") chain else diag(0.5, 4) + 0.5))))
write(toJSON(list(cases = cases, mvt = exact), digits = 12, auto_unbox = TRUE, null = "null", na = "null"), args[2])
