# nlme's residual structures and glmmTMB's covariance structures on nlme's and simulated data; writes lmm_more_structures.json.
# Usage: Rscript lmm_more_structures.R <folder of the data of lmm_more.R> <lmm_more.json> <output>
suppressMessages({library(nlme); library(glmmTMB); library(jsonlite)})
args <- commandArgs(trailingOnly = TRUE)
described <- fromJSON(args[2], simplifyVector = FALSE)$data
read <- function(name) { d <- read.csv(file.path(args[1], paste0(name, ".csv"))); for (v in names(d)) { k <- described[[name]][[v]]; if (k$type %in% c("factor", "ordered")) d[[v]] <- factor(d[[v]], levels = unlist(k$levels), ordered = k$type == "ordered") }; d }
tight <- lmeControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-12, msTol = 1e-14, niterEM = 50, opt = "nlminb", msMaxEval = 5000, returnObject = TRUE)
tight_gls <- glsControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-12, msTol = 1e-14, opt = "nlminb", returnObject = TRUE)
out <- function(fit, mixed) { s <- fit$modelStruct
  list(loglik = as.numeric(logLik(fit)), n_parameters = attr(logLik(fit), "df"), aic = AIC(fit), bic = BIC(fit), fixef = I(unname(if (mixed) fixef(fit) else coef(fit))), vcov = unname(as.matrix(vcov(fit))), sigma = fit$sigma,
   var = if (is.null(s$varStruct)) NULL else I(unname(coef(s$varStruct, unconstrained = FALSE))), rho = if (is.null(s$corStruct)) NULL else unname(coef(s$corStruct, unconstrained = FALSE)),
   sd = if (mixed) suppressWarnings({ v <- as.numeric(VarCorr(fit)[, "StdDev"]); I(v[!is.na(v)]) }) else NULL) }
case <- function(dataset, formula, sigma, fixed, random = NULL, correlation = NULL, weights = NULL) {
  data <- na.omit(read(dataset)); if (dataset == "BodyWeight") data$week <- as.integer(factor(data$Time)); o <- list(dataset = dataset, formula = formula, sigma = sigma); cat(dataset, formula, sigma, "\n")
  for (m in c("REML", "ML")) o[[m]] <- tryCatch({ fit <- if (is.null(random)) do.call(gls, list(fixed, data = data, correlation = correlation, weights = weights, method = m, control = tight_gls)) else do.call(lme, list(fixed, random = random, data = data, correlation = correlation, weights = weights, method = m, control = tight)); out(fit, !is.null(random)) }, error = function(e) list(error = conditionMessage(e)))
  o
}
nl <- list(
 rats_ident = case("BodyWeight", "weight ~ Time * Diet + (Time | Rat)", "~ Diet", weight ~ Time * Diet, ~Time | Rat, NULL, varIdent(form = ~1 | Diet)),
 rats_exp = case("BodyWeight", "weight ~ Time * Diet + (1 | Rat)", "~ Time", weight ~ Time * Diet, ~1 | Rat, NULL, varExp(form = ~Time)),
 rats_week = case("BodyWeight", "weight ~ Time * Diet + (1 | Rat) + ar(week, Rat)", NULL, weight ~ Time * Diet, ~1 | Rat, corAR1(.4, form = ~week | Rat)),
 rats_week_gls = case("BodyWeight", "weight ~ Time * Diet + ar(week, Rat)", "~ Diet", weight ~ Time * Diet, NULL, corAR1(.8, form = ~week | Rat), varIdent(form = ~1 | Diet)),
 ovary = case("Ovary", "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + (1 | Mare) + ar(gr = Mare)", NULL, follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), ~1 | Mare, corAR1(.5, form = ~1 | Mare)),
 ovary_gls = case("Ovary", "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + ar(gr = Mare)", NULL, follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), NULL, corAR1(.5, form = ~1 | Mare)),
 machines = case("Machines", "score ~ Machine + (1 | Worker)", "~ Machine", score ~ Machine, ~1 | Worker, NULL, varIdent(form = ~1 | Machine)),
 nested = case("nested", "y ~ trt + (1 | site/plot)", "~ year", y ~ trt, ~1 | site/plot, NULL, varIdent(form = ~1 | year)),
 dialyzer = case("Dialyzer", "rate ~ poly(pressure, 3) * QB + (1 | Subject)", "~ pressure", rate ~ poly(pressure, 3) * QB, ~1 | Subject, NULL, varExp(form = ~pressure)),
 unb = case("unbalanced", "y ~ x + f + (x | g)", "~ k", y ~ x + f, ~x | g, NULL, varIdent(form = ~1 | k)),
 unb_two = case("unbalanced", "y ~ x + f + (1 | g)", "~ k + z", y ~ x + f, ~1 | g, NULL, varComb(varIdent(form = ~1 | k), varExp(form = ~z)))
)
tmb <- function(dataset, formula, theirs, reml = FALSE, disp = ~1) {
  data <- na.omit(read(dataset)); cat(dataset, formula, "\n")
  fit <- tryCatch(suppressWarnings(glmmTMB(theirs, data, REML = reml, dispformula = disp, control = glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-15, x.tol = 1e-12)))), error = function(e) e)
  if (inherits(fit, "error")) return(list(error = conditionMessage(fit)))
  # Newton's steps on the exact gradient
  obj <- fit$obj; p <- fit$fit$par
  for (i in 1:3) { H <- numDeriv::jacobian(obj$gr, p); step <- tryCatch(solve(H, as.numeric(obj$gr(p))), error = function(e) 0); q <- p - step; if (is.finite(obj$fn(q)) && obj$fn(q) <= obj$fn(p) + 1e-9) p <- q }
  vc <- VarCorr(fit)$cond
  list(dataset = dataset, formula = formula, reml = reml, criterion = 2 * as.numeric(obj$fn(p)), gradient = max(abs(obj$gr(p))), fixef = I(unname(fixef(fit)$cond)), sigma = sigma(fit), df = attr(logLik(fit), "df"),
    sds = lapply(vc, function(v) I(unname(attr(v, "stddev")))), cors = lapply(vc, function(v) unname(attr(v, "correlation"))), se = I(unname(sqrt(diag(vcov(fit)$cond)))))
}
gt <- list(
 cs_machine = tmb("Machines", "score ~ Machine + cs(0 + Machine | Worker)", score ~ Machine + cs(0 + Machine | Worker)),
 cs_machine_reml = tmb("Machines", "score ~ Machine + cs(0 + Machine | Worker)", score ~ Machine + cs(0 + Machine | Worker), TRUE),
 diag_machine = tmb("Machines", "score ~ Machine + diag(0 + Machine | Worker)", score ~ Machine + diag(0 + Machine | Worker)),
 diag_x = tmb("unbalanced", "y ~ x + f + diag(x | g) + (1 | h)", y ~ x + f + diag(x | g) + (1 | h)),
 cs_f = tmb("unbalanced", "y ~ x + f + cs(0 + f | g)", y ~ x + f + cs(0 + f | g)),
 us_f = tmb("unbalanced", "y ~ x + f + us(x | g) + (1 | h)", y ~ x + f + us(x | g) + (1 | h), TRUE)
)
write(toJSON(list(nlme = nl, tmb = gt), digits = I(10), auto_unbox = TRUE, null = "null", na = "null"), args[3])
