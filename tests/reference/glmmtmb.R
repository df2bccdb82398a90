# Golden values of generalised models that the stored results lack: other links, families, and predictors of further parameters.
# Run: Rscript glmmtmb.R DATASETS OUT.json   (DATASETS: the folder of CSV files; written with glmmTMB 1.1.5, R 4.2.2)
suppressMessages({library(glmmTMB); library(jsonlite)})
args <- commandArgs(trailingOnly = TRUE)
read <- function(name) read.csv(file.path(args[1], paste0(name, ".csv")), stringsAsFactors = TRUE)
cbpp <- transform(read("cbpp"), herd = factor(herd), period = factor(period))
glmm <- transform(read("sim_glmm"), g = factor(g), w = 1 + (seq_along(x) %% 3))
sal <- transform(read("Salamanders"), mined = factor(mined, levels = c("yes", "no")))
sleep <- transform(read("sleepstudy"), Subject = factor(Subject))
ticks <- transform(read("grouseticks"), BROOD = factor(BROOD), INDEX = factor(INDEX), LOCATION = factor(LOCATION), YEAR = factor(YEAR))

tight <- glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-14, x.tol = 1e-12))
newton <- function(fit) {  # Newton steps on TMB's exact gradient, from nlminb's answer
  obj <- fit$obj; par <- fit$fit$par
  for (i in 1:5) {
    H <- optimHess(par, obj$fn, obj$gr, control = list(ndeps = rep(1e-4, length(par))))
    step <- tryCatch(solve(H, as.vector(obj$gr(par))), error = function(e) 0 * par)
    if (!all(is.finite(step)) || max(abs(step)) < 1e-12) break
    par <- par - step
  }
  list(value = obj$fn(par), par = par, gradient = max(abs(obj$gr(par))), sd = TMB::sdreport(obj, par.fixed = par))
}
attempt <- function(...) tryCatch(one(...), error = function(e) {message(conditionMessage(e)); NULL})
one <- function(formula, data, family, ...) {
  fit <- suppressWarnings(glmmTMB(formula, data = data, family = family, control = tight, ...))
  done <- newton(fit)
  covariance <- done$sd$cov.fixed
  se <- split(sqrt(diag(covariance)), names(done$par))
  list(logLik = -done$value, par = split(unname(done$par), names(done$par)), se = lapply(se, unname), max_abs_grad = done$gradient)
}
fits <- list(
  cbpp_probit = attempt(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial("probit")),
  cbpp_cloglog = attempt(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial("cloglog")),
  gamma_log = attempt(y_gamma ~ x + (1 | g), glmm, Gamma("log")),
  gamma_inverse = attempt(y_gamma ~ x + (1 | g), glmm, Gamma("inverse"), start = list(beta = c(0.6, -0.1))),
  gamma_slopes = attempt(Reaction ~ Days + (Days | Subject), sleep, Gamma("log")),
  gaussian_log = attempt(Reaction ~ Days + (1 | Subject), sleep, gaussian("log"), start = list(beta = c(5.5, 0.03))),
  poisson_sqrt = attempt(y_pois ~ x + (1 | g), glmm, poisson("sqrt"), start = list(beta = c(1.3, 0.1))),
  poisson_weights = attempt(y_pois ~ x + (1 | g), glmm, poisson(), weights = glmm$w),
  poisson_offset = attempt(y_poff ~ x + offset(log(exposure)) + (1 | g), glmm, poisson()),
  nbinom1 = attempt(y_nb ~ x + (1 | g), glmm, nbinom1()),
  nbinom2_dispersion = attempt(y_nb ~ x + (1 | g), glmm, nbinom2(), dispformula = ~x),
  betabinomial_dispersion = attempt(cbind(k_bb, n - k_bb) ~ x + (1 | g), glmm, betabinomial(), dispformula = ~x),
  beta_probit = attempt(y_beta ~ x + (1 | g), glmm, beta_family("probit")),
  zip_random = attempt(count ~ mined + (1 | site), sal, poisson(), ziformula = ~ mined + (1 | site)),
  zip_crossed = attempt(count ~ mined + (1 | site) + (1 | spp), sal, poisson(), ziformula = ~ mined + (1 | spp)),
  hurdle_poisson = attempt(count ~ mined + (1 | site), sal, truncated_poisson(), ziformula = ~mined),
  hurdle_nbinom2 = attempt(count ~ mined + (1 | site), sal, truncated_nbinom2(), ziformula = ~mined),
  ticks_nbinom2 = attempt(TICKS ~ YEAR + I((HEIGHT - 460) / 100) + (1 | BROOD) + (1 | LOCATION), ticks, nbinom2())
)
write_json(Filter(Negate(is.null), fits), args[2], digits = I(15), auto_unbox = TRUE, pretty = TRUE)
