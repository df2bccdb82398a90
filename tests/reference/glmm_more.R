# Golden values of generalised mixed models on data sets that the stored results lack; writes the sets as CSV and glmm_more.json.
# Run: Rscript glmm_more.R DATA_FOLDER OUT.json   (written with glmmTMB 1.1.5, lme4 1.1-31, R 4.2.2)
suppressMessages({library(glmmTMB); library(lme4); library(jsonlite); library(splines)})
args <- commandArgs(trailingOnly = TRUE)

set.seed(20)
sim <- expand.grid(a = paste0("a", 1:10), b = paste0("b", 1:3), rep = 1:8)
sim <- within(sim[order(sim$a, sim$b), ], {
  item <- factor(paste0("i", (seq_along(a) * 5) %% 12 + 1))
  f <- factor(rep_len(c("low", "mid", "high"), length(a))[sample(length(a))], levels = c("low", "mid", "high"))
  x <- round(rnorm(length(a)), 3)
  z <- round(runif(length(a)), 3)
  exposure <- round(exp(rnorm(length(a), 0.5, 0.6)), 3)
  w <- 1 + seq_along(a) %% 3
  big <- 1e6 * x
  twice <- 2 * x
  row <- factor(seq_along(a))
})
N <- nrow(sim)
one <- function(f, sd) rnorm(nlevels(f), 0, sd)[f]
ab <- interaction(sim$a, sim$b)
u <- one(sim$a, 0.6) + one(ab, 0.4) + one(sim$item, 0.5)
slope <- one(ab, 0.5) * sim$x
fx <- c(0, 0.4, -0.3)[sim$f]
sim$yb <- rbinom(N, 1, plogis(-0.4 + 0.7 * sim$x + fx + u))
sim$rare <- rbinom(N, 1, plogis(-3 + 0.6 * sim$x + u))
sim$n <- 3 + rpois(N, 5)
sim$k <- rbinom(N, sim$n, plogis(-0.5 + 0.5 * sim$x + fx + u + slope))
sim$prop <- sim$k / sim$n
sim$klog <- rbinom(N, sim$n, pmin(exp(-1.6 + 0.2 * sim$x + 0.4 * one(ab, 0.5)), 0.95))
sim$kbb <- rbinom(N, sim$n, rbeta(N, 2.5 * plogis(0.3 * sim$x + u), 2.5 * (1 - plogis(0.3 * sim$x + u))))
sim$yp <- rpois(N, exp(0.6 + 0.4 * sim$x + fx + u + slope))
sim$yo <- rpois(N, sim$exposure * exp(0.2 + 0.3 * sim$x + u + rnorm(N, 0, 0.4)))
sim$ynb <- rnbinom(N, mu = exp(1 + 0.4 * sim$x + u), size = exp(0.6 + 0.8 * sim$z))
sim$yzi <- ifelse(runif(N) < plogis(-1 + 1.2 * sim$z), 0, rpois(N, exp(1.2 + 0.3 * sim$x + u)))
sim$yhu <- ifelse(runif(N) < plogis(-0.7 + sim$z), 0, 1 + rnbinom(N, mu = exp(0.8 + 0.3 * sim$x + u), size = 2))
sim$yg <- round(rgamma(N, 3, 3 / exp(0.5 + 0.3 * sim$x + u)), 5) + 1e-4
sim$yinv <- round(rgamma(N, 12, 12 * pmax(1.5 + 0.15 * sim$x + 0.2 * u, 0.3)), 5) + 1e-4
sim$ybe <- pmin(pmax(round(rbeta(N, 6 * plogis(0.4 * sim$x + u), 6 * (1 - plogis(0.4 * sim$x + u))), 5), 1e-4), 1 - 1e-4)
sim$yln <- round(exp(rnorm(N, 0.5 + 0.3 * sim$x + u, 0.5)), 5)
sim$flat <- rbinom(N, sim$n, plogis(-0.3 + 0.4 * sim$x))
sim$xna <- replace(sim$x, c(3, 50, 51, 177), NA)
sim$yb <- ifelse(sim$a == "a4" , 0, sim$yb)
sim$rep <- NULL

data(bacteria, package = "MASS"); data(epil, package = "MASS"); data(Contraception, package = "mlmRev")
data(Owls, package = "glmmTMB"); data(Arabidopsis, package = "lme4")
women <- droplevels(Contraception[as.integer(as.character(Contraception$district)) <= 16, c("district", "use", "livch", "age", "urban")])
women$age <- round(women$age, 4)
gopher <- local({
  set.seed(7); d <- expand.grid(Site = LETTERS[1:10], year = 2004:2006)
  d$prev <- round(rep(runif(10, 0, 60), 3), 1); d$Area <- round(rep(rlnorm(10, 1.5, 0.7), 3), 1)
  d$shells <- rpois(30, d$Area * exp(-2 + 0.02 * d$prev + rep(rnorm(10, 0, 0.9), 3))); d
})
owls <- Owls[, c("Nest", "FoodTreatment", "SexParent", "ArrivalTime", "SiblingNegotiation", "BroodSize")]
seeds <- local({d <- Arabidopsis[, c("reg", "popu", "gen", "rack", "nutrient", "amd", "status", "total.fruits")]; names(d)[8] <- "fruits"; d})
sets <- list(sim = sim, bacteria = bacteria, epil = epil, women = women, owls = owls, seeds = seeds, gopher = gopher)
sets$sim <- sim[setdiff(names(sim), c("big", "twice", "row"))]
for (name in names(sets)) write.csv(sets[[name]], file.path(args[1], paste0(name, ".csv")), row.names = FALSE, na = "")
levels_of <- lapply(sets, function(d) lapply(Filter(is.factor, d), levels))
sim$f4 <- factor(sim$f, levels = c("low", "mid", "none", "high"))
seeds <- transform(seeds, nutrient = factor(nutrient), rack = factor(rack), gen = factor(gen))
epil <- transform(epil, subject = factor(subject))

tight <- glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-14, x.tol = 1e-12))
polish <- function(fit) {  # Newton steps on TMB's exact gradient, from nlminb's answer
  obj <- fit$obj; par <- fit$fit$par
  for (i in 1:6) {
    H <- optimHess(par, obj$fn, obj$gr, control = list(ndeps = rep(1e-4, length(par))))
    step <- tryCatch(solve(H, as.vector(obj$gr(par))), error = function(e) 0 * par)
    if (!all(is.finite(step)) || max(abs(step)) < 1e-12) break
    if (!is.finite(obj$fn(par - step)) || obj$fn(par - step) > obj$fn(par) + 1e-9) break
    par <- par - step
  }
  value <- obj$fn(par)
  fit$fit$par <- par; fit$fit$parfull <- obj$env$last.par
  fit$sdr <- TMB::sdreport(obj, par.fixed = par)
  list(fit = fit, value = value, par = par, gradient = max(abs(obj$gr(par))))
}
TMB <- function(formula, data, family, ...) {
  d <- polish(suppressWarnings(do.call(glmmTMB, list(formula, data = data, family = family, control = tight, ...))))
  covariance <- d$fit$sdr$cov.fixed
  list(logLik = -d$value, par = split(unname(d$par), names(d$par)), se = lapply(split(sqrt(diag(covariance)), names(d$par)), unname),
       names = lapply(fixef(d$fit), names), max_abs_grad = d$gradient, nobs = nobs(d$fit),
       sd = lapply(VarCorr(d$fit)$cond, function(v) unname(attr(v, "stddev"))),
       cor = lapply(VarCorr(d$fit)$cond, function(v) unname(attr(v, "correlation")[lower.tri(v)])),
       ranef = lapply(ranef(d$fit)$cond, function(r) list(levels = rownames(r), values = unname(as.matrix(r)))),
       fitted = unname(head(fitted(d$fit), 12)))
}
control <- glmerControl(optimizer = "nloptwrap", tolPwrss = 1e-13, calc.derivs = FALSE, check.conv.singular = "ignore",
  optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-10, ftol_abs = 1e-12, xtol_rel = 0, ftol_rel = 0, maxeval = 1e5))
saturated <- function(fit) {
  y <- getME(fit, "y"); w <- weights(fit)
  if (family(fit)$family == "poisson") return(-2 * sum(dpois(y, y, log = TRUE)))
  -2 * sum(dbinom(round(y * w), w, y, log = TRUE))
}
GLMER <- function(formula, data, family, nAGQ, ...) {
  given <- list(formula, data = data, family = family, nAGQ = nAGQ, control = control, ...)
  fit <- do.call(glmer, given)
  dev <- do.call(glmer, c(given, devFunOnly = TRUE)); best <- c(getME(fit, "theta"), fixef(fit))
  H <- numDeriv::hessian(dev, best); m <- length(getME(fit, "theta"))
  list(deviance = dev(best) + if (nAGQ > 1) saturated(fit) else 0, beta = unname(fixef(fit)), names = names(fixef(fit)),
       se = unname(sqrt(diag(2 * solve(H))))[-seq_len(m)], theta = unname(getME(fit, "theta")), nAGQ = nAGQ,
       gradient = max(abs(numDeriv::grad(dev, best))))
}
out <- list()
add <- function(name, expr) {
  found <- tryCatch(expr, error = function(e) {message(name, ": ", conditionMessage(e)); NULL})
  if (!is.null(found)) out[[name]] <<- found
}
add("bacteria", TMB(y ~ trt + I(week > 2) + (1 | ID), bacteria, binomial))
for (q in c(5, 10, 25)) add(paste0("bacteria_agq", q), GLMER(y ~ trt + I(week > 2) + (1 | ID), bacteria, binomial, q))
add("bacteria_probit_agq50", GLMER(y ~ trt + I(week > 2) + (1 | ID), bacteria, binomial("probit"), 50))
add("bacteria_cauchit_agq50", GLMER(y ~ trt + (1 | ID), bacteria, binomial("cauchit"), 50))
add("epil", TMB(y ~ lbase * trt + lage + V4 + (1 | subject), epil, poisson))
add("epil_agq10", GLMER(y ~ lbase * trt + lage + V4 + (1 | subject), epil, poisson, 10))
add("epil_slopes", TMB(y ~ lbase + trt + (period | subject), epil, poisson))
add("epil_nb1", TMB(y ~ lbase * trt + lage + (1 | subject), epil, nbinom1))
add("epil_nb2", TMB(y ~ lbase * trt + lage + (1 | subject), epil, nbinom2))
add("women", TMB(use ~ age + I(age^2) + urban + livch + (1 | district), women, binomial))
add("women_slopes", TMB(use ~ age + I(age^2) + urban + livch + (urban | district), women, binomial))
add("women_cells", TMB(use ~ age + urban + (0 + urban | district), women, binomial("cloglog")))
add("women_poly", TMB(use ~ poly(age, 3) * urban + livch + (1 | district), women, binomial("probit")))
add("owls_zip", TMB(SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest), owls, poisson, ziformula = ~1))
add("owls_zinb", TMB(SiblingNegotiation ~ FoodTreatment + ArrivalTime + offset(log(BroodSize)) + (1 | Nest), owls, nbinom2, ziformula = ~FoodTreatment))
add("owls_nb1", TMB(SiblingNegotiation ~ FoodTreatment + SexParent + offset(log(BroodSize)) + (1 | Nest), owls, nbinom1))
add("seeds", TMB(fruits ~ nutrient * amd + rack + status + (1 | popu) + (1 | gen), seeds, poisson))
add("seeds_nb2", TMB(fruits ~ nutrient * amd + rack + status + (1 | popu) + (nutrient | gen), seeds, nbinom2))
add("gopher", TMB(shells ~ prev + factor(year) + offset(log(Area)) + (1 | Site), gopher, poisson))
add("gopher_agq25", GLMER(shells ~ prev + factor(year) + offset(log(Area)) + (1 | Site), gopher, poisson, 25))
add("nested", TMB(cbind(k, n - k) ~ x + f + (1 | a/b), sim, binomial))
add("crossed_sum", TMB(yb ~ x * f + (1 | a) + (1 | item), sim, binomial, contrasts = list(f = "contr.sum")))
add("crossed_helmert", TMB(yb ~ x + f + (1 | a) + (1 | item), sim, binomial, contrasts = list(f = "contr.helmert")))
add("proportion", TMB(prop ~ x + f + (1 | a), sim, binomial, weights = sim$n))
add("proportion_agq10", GLMER(prop ~ x + f + (1 | a), sim, binomial, 10, weights = sim$n))
add("correlated", TMB(cbind(k, n - k) ~ x + (x | a:b), sim, binomial))
add("uncorrelated", TMB(yp ~ x + f + diag(1 + x | a:b), sim, poisson))
add("observation", TMB(yo ~ x + offset(log(exposure)) + (1 | a/b) + (1 | row), sim, poisson))
add("loglink", TMB(cbind(klog, n - klog) ~ x + (1 | a:b), sim, binomial("log"), start = list(beta = c(-1.5, 0.1))))
add("splines", TMB(yp ~ ns(x, 3) + f + (1 | a), sim, poisson))
add("missing", TMB(yp ~ xna + f + (1 | a), sim, poisson))
add("unused", TMB(yp ~ x + f4 + (1 | a), droplevels(sim), poisson))
add("scaled", TMB(yb ~ I(big / 1e6) + (1 | a), sim, binomial))
add("rare", TMB(rare ~ x + (1 | a), sim, binomial))
add("rare_agq25", GLMER(rare ~ x + (1 | a), sim, binomial, 25))
add("nb2_dispersion", TMB(ynb ~ x + (1 | a), sim, nbinom2, dispformula = ~ z + f))
add("nb1_dispersion", TMB(ynb ~ x + (1 | a/b), sim, nbinom1, dispformula = ~z))
add("betabinomial", TMB(cbind(kbb, n - kbb) ~ x + (x | a), sim, betabinomial))
add("betabinomial_weights", TMB(cbind(kbb, n - kbb) ~ x + (1 | a), sim, betabinomial, dispformula = ~z))
add("beta", TMB(ybe ~ x + f + (1 | a) + (1 | item), sim, beta_family))
add("beta_dispersion", TMB(ybe ~ x + (1 | a), sim, beta_family("cloglog"), dispformula = ~ z + x))
add("gamma_log", TMB(yg ~ x + f + (1 | a/b), sim, Gamma("log"), dispformula = ~1))
add("gamma_inverse", TMB(yinv ~ x + (1 | a), sim, Gamma("inverse"), start = list(beta = c(1.5, 0.1))))
add("gamma_weights", TMB(yg ~ x + (1 | a), sim, Gamma("log"), weights = sim$w))
add("zip_formula", TMB(yzi ~ x + (1 | a), sim, poisson, ziformula = ~ z + (1 | a)))
add("zinb", TMB(yzi ~ x + (1 | a), sim, nbinom2, ziformula = ~z))
add("hurdle_nb2", TMB(yhu ~ x + (1 | a), sim, truncated_nbinom2, ziformula = ~z))
add("hurdle_random", TMB(yhu ~ x + (1 | a), sim, truncated_poisson, ziformula = ~ z + (1 | item)))
positive <- subset(sim, yhu > 0)
add("truncated_poisson", TMB(yhu ~ x + (1 | a), positive, truncated_poisson))
add("truncated_nb2", TMB(yhu ~ x + f + (1 | a), positive, truncated_nbinom2))
add("lognormal", local({found <- TMB(log(yln) ~ x + f + (1 | a/b), sim, gaussian); found$logLik <- found$logLik - sum(log(sim$yln)); found}))
add("gaussian_log", TMB(yln ~ x + (1 | a), sim, gaussian("log"), start = list(beta = c(0.5, 0.3))))
add("flat", TMB(cbind(flat, n - flat) ~ x + (1 | item), sim, binomial))
add("poisson_weights", TMB(yp ~ x + (x | a), sim, poisson, weights = sim$w))

suppressMessages({library(car); library(emmeans); library(performance)})
control$calc.derivs <- TRUE
nested <- do.call(glmer, list(cbind(k, n - k) ~ x + f + (1 | a:b) + (1 | a), sim, binomial, control = control))
summed <- do.call(glmer, list(yb ~ x * f + (1 | a) + (1 | item), sim, binomial, control = control, contrasts = list(f = "contr.sum")))
slopes <- do.call(glmer, list(cbind(k, n - k) ~ x + (x | a:b), sim, binomial, control = control))
exposed <- glmmTMB(yo ~ x + f + offset(log(exposure)) + (1 | a), sim, poisson, control = tight)
numbers <- function(table) unname(lapply(Filter(is.numeric, as.data.frame(table)), as.numeric))
shares <- function(fit) c(unlist(r2_nakagawa(fit))[2:1], unlist(icc(fit))[1:2])
verbs <- list(
  lrt = numbers(anova(update(nested, . ~ . - f), nested)),
  type2 = numbers(Anova(nested)), type3 = numbers(Anova(summed, type = 3)),
  without = lapply(c("(1 | a:b)", "(1 | a)"), function(t) anova(update(nested, paste(". ~ . -", t)), nested)$Chisq[2]),
  means = numbers(emmeans(nested, ~f)), means_response = numbers(emmeans(nested, ~f, type = "response")),
  odds = numbers(pairs(emmeans(nested, ~f), type = "response")), odds_limits = numbers(confint(pairs(emmeans(nested, ~f), type = "response"))),
  exposed = numbers(emmeans(exposed, ~f, type = "response", df = Inf)),
  shares = list(nested = shares(nested), slopes = shares(slopes)),
  residuals = sapply(c("response", "pearson", "deviance", "working"), function(kind) unname(head(residuals(slopes, kind), 12)), simplify = FALSE),
  link = unname(head(predict(slopes), 12)), average = unname(head(predict(slopes, re.form = NA, type = "response"), 12)),
  aic = AIC(slopes), bic = BIC(slopes), df_residual = df.residual(slopes)
)
write_json(list(levels = levels_of, fits = out, verbs = verbs), args[2], digits = I(15), auto_unbox = TRUE, pretty = FALSE)
for (n in names(out)) cat(n, out[[n]]$max_abs_grad, out[[n]]$gradient, "\n")
