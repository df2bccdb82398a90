# Models with a residual structure by nlme, as tightly converged as it can (nlminb then says "singular convergence"), on cases that the stored results lack; writes residual.json.
# Usage: Rscript residual.R <folder of data sets> <output>
suppressMessages({library(nlme); library(jsonlite)})
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
tight <- lmeControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-12, msTol = 1e-14, niterEM = 50, opt = "nlminb", msMaxEval = 5000, returnObject = TRUE)
tight_gls <- glsControl(maxIter = 500, msMaxIter = 500, tolerance = 1e-12, msTol = 1e-14, opt = "nlminb", returnObject = TRUE)
results <- function(fit, mixed) {
  s <- fit$modelStruct
  out <- list(
    loglik = as.numeric(logLik(fit)), n_parameters = attr(logLik(fit), "df"), aic = AIC(fit), fixef = if (mixed) unname(fixef(fit)) else unname(coef(fit)),
    vcov = unname(as.matrix(vcov(fit))), sigma = fit$sigma,
    var = if (is.null(s$varStruct)) NULL else unname(coef(s$varStruct, unconstrained = FALSE)),
    rho = if (is.null(s$corStruct)) NULL else unname(coef(s$corStruct, unconstrained = FALSE)),
    pearson = unname(c(residuals(fit, type = "pearson"))), normalized = unname(c(residuals(fit, type = "normalized")))
  )
  if (mixed) {
    out$sd <- suppressWarnings(as.numeric(VarCorr(fit)[, "StdDev"]))
    r <- ranef(fit)
    out$ranef <- if (is.data.frame(r)) list(levels = rownames(r), values = unname(as.matrix(r))) else lapply(r, function(one) list(levels = rownames(one), values = unname(as.matrix(one))))
  }
  out
}
case <- function(dataset, formula, sigma, rows, fixed, random = NULL, correlation = NULL, weights = NULL, prior = NULL, edit = identity) {
  data <- edit(read(dataset))
  if (!is.null(rows)) data <- data[rows, ]
  out <- list(dataset = dataset, formula = formula, sigma = sigma, rows = if (is.null(rows)) NULL else I(rows - 1L), weights = prior)
  for (method in c("REML", "ML")) {
    fit <- if (is.null(random)) gls(fixed, data = data, correlation = correlation, weights = weights, method = method, control = tight_gls)
           else lme(fixed, random = random, data = data, correlation = correlation, weights = weights, method = method, control = tight)
    out[[method]] <- results(fit, !is.null(random))
  }
  out
}
gaps <- setdiff(1:180, c(2, 3, 14, 27, 28, 29, 45, 66, 67, 90, 101, 118, 119, 120, 121, 155, 171, 179))
shuffled <- c(seq(1, 180, by = 2), seq(2, 180, by = 2))
cases <- list(
  gaps = case("sleepstudy", "Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", NULL, gaps, Reaction ~ Days, ~1 | Subject, corAR1(0.5, form = ~Days | Subject)),
  shuffled = case("sleepstudy", "Reaction ~ I(Days^2) + (1 | Subject) + ar(time = Days, gr = Subject)", NULL, shuffled, Reaction ~ I(Days^2), ~1 | Subject, corAR1(0.5, form = ~Days | Subject)),
  both = case("sleepstudy_x", "Reaction ~ Days + (1 | Subject) + ar(time = Days, gr = Subject)", "~ late", gaps, Reaction ~ Days, ~1 | Subject, corAR1(0.5, form = ~Days | Subject), varIdent(form = ~1 | late)),
  exponential = case("sleepstudy", "Reaction ~ Days + (Days | Subject)", "~ Days", NULL, Reaction ~ Days, ~Days | Subject, NULL, varExp(form = ~Days)),
  gls_ar = case("sleepstudy", "Reaction ~ Days + ar(Days, Subject)", NULL, gaps, Reaction ~ Days, NULL, corAR1(0.5, form = ~Days | Subject)),
  gls_negative = case("Orthodont", "distance ~ age + ar(wave, Subject)", NULL, NULL, distance ~ age, NULL, corAR1(0.3, form = ~wave | Subject), edit = function(d) { d$wave <- (d$age - 6) / 2; d }),
  gls_ident = case("sim_hetero", "y ~ trt + x", "~ trt", NULL, y ~ trt + x, NULL, NULL, varIdent(form = ~1 | trt)),
  nested = case("sim_nested3", "y ~ x + (1 | region/site)", "~ x", NULL, y ~ x, ~1 | region/site, NULL, varExp(form = ~x)),
  weighted = case("sleepstudy_x", "Reaction ~ Days + (1 | Subject)", "~ Days", NULL, Reaction ~ Days, ~1 | Subject, NULL, varComb(varFixed(~winv), varExp(form = ~Days)), prior = "w", edit = function(d) { d$winv <- 1 / d$w; d })
)
data <- read("sleepstudy_x")
a <- lme(Reaction ~ Days, random = ~1 | Subject, data = data, method = "ML", control = tight)
b <- update(a, weights = varIdent(form = ~1 | late))
c <- update(b, correlation = corAR1(0.5, form = ~Days | Subject))
t <- anova(a, b, c)
# sleepstudy__t04 of the stored results, where glmmTMB fails: a latent autoregression and a residual are a correlation with a nugget.
e <- gls(Reaction ~ Days, data = read("sleepstudy"), correlation = corExp(c(8, 0.1), form = ~Days | Subject, nugget = TRUE), method = "ML", control = tight_gls)
k <- coef(e$modelStruct$corStruct, unconstrained = FALSE)
latent <- list(loglik = as.numeric(logLik(e)), fixef = unname(coef(e)), sd = e$sigma * sqrt(1 - k[["nugget"]]), sigma = e$sigma * sqrt(k[["nugget"]]), rho = exp(-1 / k[["range"]]))
out <- list(cases = cases, latent = latent, lrt = list(loglik = t$logLik, df = t$df, chisq = t$L.Ratio, p_value = t[["p-value"]]))
writeLines(toJSON(out, digits = NA, auto_unbox = TRUE, null = "null", na = "null"), args[2])
