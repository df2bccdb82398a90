# Linear mixed models on nlme's, MASS's and simulated data, by lme4, lmerTest, pbkrtest, emmeans and performance at tight tolerance; writes the data and lmm_more.json.
# Profiles that lme4 interpolates badly, and shares of variance that insight computes without slopes that are no fixed effects, are left out.
# Usage: Rscript lmm_more.R <folder for the data> <output>
suppressMessages({library(lmerTest); library(jsonlite); library(lme4); library(splines); library(nlme); library(emmeans); library(performance)})
lmer <- lmerTest::lmer; ranef <- lme4::ranef; fixef <- lme4::fixef; VarCorr <- lme4::VarCorr
args <- commandArgs(trailingOnly = TRUE)
emm_options(lmer.df = "satterthwaite", lmerTest.limit = 5000, pbkrtest.limit = 5000)
plain <- function(d) { d <- as.data.frame(d); for (v in names(d)) { if (is.factor(d[[v]])) { was <- is.ordered(d[[v]]); keep <- attr(d[[v]], "keep_ordered"); d[[v]] <- factor(as.character(d[[v]]), levels = levels(d[[v]]), ordered = identical(keep, TRUE)) }; if (is.numeric(d[[v]])) d[[v]] <- as.numeric(d[[v]]) }; d }
ordered_as <- function(x, levels = sort(unique(x))) { f <- factor(x, levels = levels, ordered = TRUE); attr(f, "keep_ordered") <- TRUE; f }
data <- list()
data$Machines <- plain(nlme::Machines)[-c(2, 5, 11, 30, 31), ]
d <- nlme::Oats; d$nitrof <- ordered_as(d$nitro); data$Oats <- plain(d)[-c(7, 20, 33), ]
data$ergoStool <- plain(nlme::ergoStool)[-c(3, 14), ]
data$Rail <- plain(nlme::Rail)
data$Oxide <- plain(nlme::Oxide)
data$Assay <- plain(nlme::Assay)
data$Pixel <- plain(nlme::Pixel)
data$Ovary <- plain(nlme::Ovary)
data$BodyWeight <- plain(nlme::BodyWeight)
data$Dialyzer <- plain(nlme::Dialyzer)
data$Gasoline <- plain(nlme::Gasoline)
data$Alfalfa <- plain(nlme::Alfalfa)
data$petrol <- plain(MASS::petrol)
data$npk <- plain(npk)
data$Glucose <- plain(nlme::Glucose)
data$Tetra <- plain(nlme::Tetracycline1)
set.seed(7)
n <- 260
d <- data.frame(g = factor(sample(sprintf("g%02d", 1:14), n, TRUE, prob = (1:14)^0.7)), h = factor(sample(letters[1:9], n, TRUE), levels = c(letters[9:1], "unused")),
  x = round(rnorm(n), 3), z = round(runif(n, 1, 5), 2), f = factor(sample(c("lo", "mid", "hi"), n, TRUE), levels = c("lo", "mid", "hi", "never")), k = factor(sample(c("A", "B", "C", "D"), n, TRUE)),
  flag = runif(n) < 0.4, w = sample(1:4, n, TRUE), off = round(rnorm(n, 0, 2), 2), text = sample(c("zebra", "Apple", "mango"), n, TRUE), o = ordered_as(sample(c("s", "m", "l"), n, TRUE), c("s", "m", "l")))
u <- rnorm(14, 0, 1.2); s <- rnorm(14, 0, .6); v <- rnorm(9, 0, .8); t3 <- matrix(rnorm(14 * 3, 0, .7), 14)
d$y <- with(d, 10 + .8 * x + as.integer(f) * .5 + u[g] + s[g] * x + v[pmin(as.integer(h), 9)] + t3[cbind(as.integer(g), as.integer(f))] + rnorm(n, 0, 1 / sqrt(w)) + .3 * flag)
d$y <- round(d$y, 4); d$pos <- round(exp(d$y / 6), 5)
d <- d[!(d$f == "hi" & d$k == "D"), ]
d$y[c(4, 50)] <- NA; d$x[9] <- NA; d$g[c(17, 30)] <- NA; d$w[77] <- NA
data$unbalanced <- d
set.seed(11)
d <- expand.grid(rep = 1:2, plant = 1:3, plot = 1:4, site = 1:6); d <- d[-sample(nrow(d), 30), ]
d$trt <- factor(c("ctl", "n", "p", "np")[(d$plot + d$site) %% 4 + 1], levels = c("ctl", "n", "p", "np")); d$year <- ordered_as(2000 + (d$rep + d$plant) %% 3)
d$y <- round(5 + rnorm(6)[d$site] + rnorm(24, 0, .7)[(d$site - 1) * 4 + d$plot] + rnorm(72, 0, .4)[((d$site - 1) * 4 + d$plot) * 3 - 3 + d$plant] + as.integer(d$trt) * .4 + rnorm(nrow(d), 0, .5), 4)
d$site <- factor(paste0("S", d$site)); d$plot <- factor(d$plot); d$plant <- factor(d$plant); d$rep <- NULL
data$nested <- d
described <- lapply(data, function(d) lapply(d, function(x) list(type = if (is.ordered(x)) "ordered" else if (is.factor(x)) "factor" else class(x)[1], levels = if (is.factor(x)) levels(x) else NULL)))

for (name in names(data)) write.csv(data[[name]], file.path(args[1], paste0(name, ".csv")), row.names = FALSE)
tight <- lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE, check.conv.singular = "ignore", check.rankX = "silent.drop.cols", optCtrl = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-13, ftol_abs = 1e-13, xtol_rel = 1e-15, ftol_rel = 1e-16, maxeval = 2e5))
table <- function(t) tryCatch({t <- suppressMessages(suppressWarnings(t)); if (NROW(t)) list(rows = I(rownames(t)), columns = I(colnames(t)), values = unname(as.matrix(t)))}, error = function(e) NULL)  # lmerTest fails on some
safe <- function(e) tryCatch(suppressMessages(suppressWarnings(e)), error = function(e) list(error = conditionMessage(e)))
block <- function(fit, kr, profile, emm, reml, new, whole, shares) {
  vc <- as.data.frame(VarCorr(fit))
  out <- list(criterion = as.numeric(if (reml) lme4::REMLcrit(fit) else -2 * logLik(fit)), loglik = as.numeric(logLik(fit)), npar = attr(logLik(fit), "df"), aic = AIC(fit), bic = BIC(fit), names = I(names(fixef(fit))), fixef = I(unname(fixef(fit))), vcov = unname(as.matrix(vcov(fit))),
    theta = I(unname(getME(fit, "theta"))), sigma = sigma(fit), df_residual = df.residual(fit), varcorr = list(grp = I(vc$grp), var1 = I(vc$var1), var2 = I(vc$var2), vcov = I(vc$vcov), sdcor = I(vc$sdcor)),
    satterthwaite = table(coef(summary(fit))))
  if (whole) out <- c(out, list(
    ranef = lapply(ranef(fit, condVar = TRUE), function(r) { pv <- attr(r, "postVar"); sds <- tryCatch(if (is.list(pv)) do.call(cbind, lapply(pv, function(a) sqrt(t(apply(a, 3, diag))) |> (\(m) if (nrow(m) == nrow(r)) m else t(m))())) else { m <- apply(pv, 3, function(a) sqrt(diag(as.matrix(a)))); if (is.matrix(m)) t(m) else matrix(m) }, error = function(e) NULL); list(levels = I(rownames(r)), columns = I(colnames(r)), values = unname(as.matrix(r)), sds = sds) }),
    fitted = I(unname(fitted(fit))), pearson = I(unname(residuals(fit, "pearson"))), population = I(unname(predict(fit, re.form = NA))), hat = safe(I(unname(hatvalues(fit)))),
    cooks = safe(I(unname(cooks.distance(fit))))))
  if (!is.null(new)) out$predict <- list(conditional = safe(I(unname(predict(fit, newdata = new, allow.new.levels = TRUE)))), average = safe(I(unname(predict(fit, newdata = new, re.form = NA)))))
  for (type in c("1", "2", "3")) out[[paste0("anova", type)]] <- table(anova(fit, type = type))
  if (reml) {
    out$ranova <- table(ranova(fit))
    if (kr) { out$kr <- table(coef(summary(fit, ddf = "Kenward-Roger"))); for (type in c("1", "2", "3")) out[[paste0("kr_anova", type)]] <- table(anova(fit, type = type, ddf = "Kenward-Roger")) }
    if (shares) out$r2 <- safe(unname(unlist(r2_nakagawa(fit))))
    if (shares) out$icc <- safe(unname(unlist(icc(fit))[1:2]))
    if (!is.null(emm)) for (ddf in c("satterthwaite", if (kr) "kenward-roger")) {
      e <- safe(emmeans(fit, as.formula(emm), lmer.df = ddf))
      if (inherits(e, "emmGrid")) out$emmeans[[ddf]] <- list(means = as.data.frame(e), pairs = as.data.frame(summary(pairs(e), adjust = "tukey")), joint = safe(as.data.frame(test(contrast(e, "pairwise"), joint = TRUE))))
      else out$emmeans[[ddf]] <- e
    }
  } else if (profile) {
    p <- safe(profile(fit, signames = FALSE)); out$profile <- if (inherits(p, "thpr")) table(confint(p)) else p
  }
  out
}
case <- function(dataset, formula, kr = TRUE, profile = FALSE, emm = NULL, contrasts = NULL, weights = NULL, offset = NULL, new = NULL, whole = FALSE, shares = TRUE) {
  d <- data[[dataset]]; f <- as.formula(formula); environment(f) <- globalenv()
  new <- if (is.null(new)) NULL else new(d)
  call <- list(quote(lmer), f, data = quote(d), control = tight)
  if (!is.null(contrasts)) call$contrasts <- contrasts
  if (!is.null(weights)) call$weights <- as.name(weights)
  if (!is.null(offset)) call$offset <- as.name(offset)
  assign("d", d, globalenv()); assign("tight", tight, globalenv())
  cat(dataset, formula, "\n")
  out <- list(dataset = dataset, formula = formula, contrasts = contrasts, weights = weights, offset = offset, emm = emm, new = new)
  for (m in c("REML", "ML")) {
    fit <- suppressMessages(suppressWarnings(eval(as.call(c(call, list(REML = m == "REML"))), globalenv())))
    out[[m]] <- safe(block(fit, kr, profile, emm, m == "REML", new, whole, shares))
  }
  out
}
odd <- function(...) { change <- list(...); function(d) { r <- d[c(1, 5, 12, 3), , drop = FALSE]; for (v in names(change)) { x <- as.character(r[[v]]); x[4] <- change[[v]]; r[[v]] <- x }; rownames(r) <- NULL; r } }
cases <- list(
  machines_int = quote(case("Machines", "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)", profile = TRUE, emm = "~ Machine", new = odd(Worker = "99"), whole = TRUE)),
  machines_slash = quote(case("Machines", "score ~ Machine + (1 | Worker/Machine)", contrasts = list(Machine = "contr.sum"), emm = "~ Machine")),
  machines_us = quote(case("Machines", "score ~ Machine + (Machine | Worker)", new = odd(Worker = "99"))),
  machines_zero = quote(case("Machines", "score ~ Machine + (0 + Machine | Worker)", shares = FALSE)),
  oats = quote(case("Oats", "yield ~ nitro * Variety + (1 | Block/Variety)", emm = "~ Variety")),
  oats_ordered = quote(case("Oats", "yield ~ nitrof * Variety + (1 | Block/Variety)", emm = "~ nitrof")),
  oats_helmert = quote(case("Oats", "yield ~ nitrof * Variety + (1 | Block) + (1 | Block:Variety)", contrasts = list(Variety = "contr.helmert", nitrof = "contr.sum"), whole = TRUE)),
  stool = quote(case("ergoStool", "effort ~ Type + (1 | Subject)", profile = TRUE, emm = "~ Type", contrasts = list(Type = "contr.helmert"), whole = TRUE)),
  rail = quote(case("Rail", "travel ~ 1 + (1 | Rail)", profile = TRUE)),
  oxide = quote(case("Oxide", "Thickness ~ Source + (1 | Lot/Wafer)", profile = TRUE, emm = "~ Source")),
  assay = quote(case("Assay", "logDens ~ sample * dilut + (1 | Block) + (1 | Block:sample) + (1 | Block:dilut)")),
  pixel = quote(case("Pixel", "pixel ~ day + I(day^2) + (day | Dog) + (1 | Side:Dog)")),
  ovary = quote(case("Ovary", "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + (sin(2 * pi * Time) || Mare)", kr = FALSE, shares = FALSE)),
  rats = quote(case("BodyWeight", "weight ~ Time * Diet + (Time | Rat)", emm = "~ Diet", new = odd(Rat = "77"))),
  rats_two = quote(case("BodyWeight", "weight ~ Diet + Time:Diet + (1 | Rat) + (0 + Time | Rat)", profile = TRUE, shares = FALSE)),
  dialyzer = quote(case("Dialyzer", "rate ~ poly(pressure, 3) * QB + (pressure + I(pressure^2) | Subject)", kr = FALSE, shares = FALSE)),
  dialyzer_ns = quote(case("Dialyzer", "rate ~ ns(pressure, 3) + QB + (pressure || Subject)", shares = FALSE)),
  dialyzer_bs = quote(case("Dialyzer", "rate ~ bs(pressure, df = 4, degree = 2) * QB + (1 | Subject)")),
  gasoline = quote(case("Gasoline", "yield ~ endpoint + vapor + (1 | Sample)", profile = TRUE, whole = TRUE)),
  alfalfa = quote(case("Alfalfa", "Yield ~ Date * Variety + (1 | Block/Variety)", emm = "~ Date | Variety")),
  petrol = quote(case("petrol", "log(Y) ~ SG + VP + V10 + EP + (1 | No)", profile = TRUE)),
  npk = quote(case("npk", "yield ~ N * P * K + (1 | block)", emm = "~ N")),
  glucose = quote(case("Glucose", "sqrt(conc) ~ poly(Time, 2) + (1 | Subject) + (1 | Subject:Meal)", shares = FALSE)),
  tetra = quote(case("Tetra", "log1p(conc) ~ Formulation * (Time + I(Time^2)) + (1 | Subject)", contrasts = list(Formulation = "contr.sum"), emm = "~ Formulation")),
  unb = quote(case("unbalanced", "y ~ x + f + (x | g) + (1 | h)", emm = "~ f", profile = TRUE, new = odd(g = "new", h = "b"), whole = TRUE)),
  unb_w = quote(case("unbalanced", "y ~ x + f + flag + (1 | g) + (1 | h)", kr = FALSE, weights = "w", emm = "~ f", whole = TRUE)),
  unb_off = quote(case("unbalanced", "y ~ x * flag + offset(off) + (1 | g)", emm = "~ flag")),
  unb_empty = quote(case("unbalanced", "y ~ f * k + (1 | g) + (1 | h)", emm = "~ f")),
  unb_cross = quote(case("unbalanced", "y ~ f * x + k + (0 + f | g) + (1 | h)", shares = FALSE)),
  unb_only = quote(case("unbalanced", "y ~ f + (0 + x | g) + (1 | h)", shares = FALSE)),
  unb_nofix = quote(case("unbalanced", "y ~ 1 + (x | g) + (z | h)", shares = FALSE)),
  unb_noint = quote(case("unbalanced", "pos ~ 0 + o + o:x + (x || g)", shares = FALSE)),
  unb_text = quote(case("unbalanced", "log(pos) ~ text * o + I(z > 2.5) + (1 | text:g)", emm = "~ text")),
  unb_spline = quote(case("unbalanced", "y ~ ns(x, df = 4) + poly(z, 2, raw = TRUE) + (flag | g)", shares = FALSE)),
  unb_scale = quote(case("unbalanced", "scale(y) ~ scale(x, scale = FALSE) * f + (scale(x) || g)", shares = FALSE)),
  unb_nested = quote(case("unbalanced", "y ~ x %in% f + f + (1 | g) + (1 | g:f)")),
  unb_power = quote(case("unbalanced", "y ~ (x + f + flag)^2 - x:flag + (1 | g/f)")),
  nested = quote(case("nested", "y ~ trt * year + (1 | site/plot/plant)", emm = "~ trt", profile = FALSE)),
  nested_poly = quote(case("nested", "y ~ trt + year + (1 | site) + (1 | site:plot)", contrasts = list(trt = "contr.poly", year = "contr.treatment"), emm = "~ trt + year"))
)
cases <- parallel::mclapply(cases, eval, mc.cores = 2, mc.preschedule = FALSE)
lrt <- function(dataset, ...) {
  d <- data[[dataset]]; assign("d", d, globalenv())
  formulas <- c(...)
  fits <- lapply(formulas, function(f) if (grepl("\\|", f)) suppressMessages(lme4::lmer(as.formula(f), d, control = tight, REML = TRUE)) else lm(as.formula(f), d))
  t <- suppressMessages(do.call(anova, c(fits[grepl("\\|", formulas)], fits[!grepl("\\|", formulas)])))
  list(dataset = dataset, formulas = I(formulas), table = list(columns = I(colnames(t)), values = unname(as.matrix(t))))
}
chains <- list(lrt("Machines", "score ~ Machine + (1 | Worker)", "score ~ Machine + (1 | Worker/Machine)", "score ~ Machine"),
  lrt("Dialyzer", "rate ~ pressure + (1 | Subject)", "rate ~ pressure * QB + (1 | Subject)", "rate ~ pressure * QB + (pressure | Subject)"),
  lrt("Oats", "yield ~ 1 + (1 | Block/Variety)", "yield ~ nitro + (1 | Block/Variety)", "yield ~ nitro * Variety + (1 | Block/Variety)"))
write(toJSON(list(data = described, cases = cases, chains = chains), digits = I(10), auto_unbox = TRUE, null = "null", na = "null"), args[2])
