# Writes model_matrix.json: what R's model.matrix and lme4's lFormula make of formulas on small data.
# Run in this folder: Rscript model_matrix.R    (needs lme4, jsonlite, splines)
suppressPackageStartupMessages({library(lme4); library(splines); library(jsonlite)})
set.seed(20)
n <- 24
d <- data.frame(
  y = round(rnorm(n), 3), x = round(runif(n, 0.2, 9), 2), z = round(rnorm(n), 2), k = rep(1:6, 4),
  f = factor(sample(c("b", "a", "c"), n, TRUE), levels = c("b", "a", "c")), g = factor(rep(c("u", "v"), 12)),
  h = factor(rep(c("h1", "h2", "h3", "h4"), each = 6)), o = factor(sample(c("lo", "mid", "hi", "top"), n, TRUE),
  levels = c("lo", "mid", "hi", "top"), ordered = TRUE), l = rep(c(TRUE, FALSE, FALSE), 8),
  t = rep(c("red", "blue", "green"), each = 8), u = factor(rep(c("p", "q"), each = 12), levels = c("p", "never", "q")),
  s = rep(c(10, 2, 30, 4), each = 6), site = rep(c("S1", "S2", "S3"), 8), region = rep(c("R2", "R1"), each = 12),
  item = rep(c("i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8"), 3), stringsAsFactors = FALSE)
d$xm <- d$x; d$xm[c(3, 17)] <- NA
d$fm <- d$f; d$fm[5] <- NA
new <- d[c(2, 9, 14, 20), ]; new$x <- c(0.1, 4, 9.5, 2.2); new$z <- c(-1, 0.5, 0, 2)

fixed <- c(
  "~ x", "~ x + z", "~ 0 + x", "~ x - 1", "~ f", "~ 0 + f", "~ f + g", "~ 0 + f + g", "~ f * g", "~ f:g", "~ 0 + f:g", "~ f + f:g",
  "~ g + f:g", "~ f:x", "~ 0 + f:x", "~ 0 + x:f", "~ x + f:x", "~ 0 + x + f:x", "~ f * x", "~ f * g * x", "~ f:g:x", "~ f * g * h",
  "~ f:g + h", "~ f:g + g:h", "~ (f + g + x)^2", "~ f * g * h - f:g:h", "~ o", "~ 0 + o", "~ o * x", "~ o:f", "~ f/g", "~ f/x", "~ f %in% g",
  "~ l", "~ 0 + l", "~ l * x", "~ l:x", "~ l:f", "~ x:l:f", "~ t", "~ t * g", "~ u", "~ u * x", "~ k", "~ factor(k)", "~ factor(k) * g",
  "~ factor(s)", "~ as.factor(s)", "~ factor(k > 3)", "~ I(x > 2)", "~ I(x^2)", "~ I(x^2) * f", "~ I(x * z - 1)", "~ x > 2", "~ log(x)", "~ log(x, 2)",
  "~ log(x, base = 10)", "~ log2(x) + log10(x) + log1p(x) + exp(z) + expm1(z) + sqrt(x) + abs(z)", "~ sin(x) + cos(x) + tan(z) + tanh(z)",
  "~ round(x) + round(x, 1) + floor(x) + ceiling(x)", "~ plogis(z)", "~ qlogis(plogis(z))", "~ scale(x)", "~ scale(x, scale = FALSE)",
  "~ scale(x, center = FALSE)", "~ scale(log(x)) * f", "~ poly(x, 2)", "~ poly(x, 4)", "~ poly(x, 1)", "~ poly(x, 3, raw = TRUE)", "~ poly(x, degree = 2) * f",
  "~ poly(x, z, degree = 2)", "~ poly(x, z, degree = 3)", "~ poly(x, z, degree = 2, raw = TRUE)", "~ poly(log(x), 2)", "~ bs(x)", "~ bs(x, df = 5)", "~ bs(x, 6)",
  "~ bs(x, knots = c(2, 5))", "~ bs(x, df = 5, degree = 2)", "~ bs(x, df = 6, intercept = TRUE)", "~ bs(x, df = 4) * g", "~ ns(x)", "~ ns(x, 2)", "~ ns(x, df = 3)", "~ ns(x, df = 5)",
  "~ ns(x, knots = c(2, 5))", "~ ns(x, df = 4, intercept = TRUE)", "~ ns(x, knots = c(3, 6), Boundary.knots = c(1, 8))", "~ ns(z, df = 4)", "~ ns(log(x), df = 3):g",
  "~ C(f, contr.sum)", "~ C(f, sum)", "~ C(f, contr.helmert) * g", "~ C(f, contr.poly)", "~ C(f, contr.SAS)", "~ 0 + C(f, contr.sum)", "~ C(o, contr.treatment)", "~ C(o, 'contr.treatment') * f", "~ C(f, SAS)",
  "~ factor(f, levels = c('c', 'a', 'b'))", "~ factor(k, levels = c(6, 5, 4, 3, 2, 1))", "~ relevel(f, ref = 'c')", "~ ifelse(x > 4, 1, 0)", "~ ifelse(x > 4, 'far', 'near')",
  "~ as.numeric(f)", "~ as.integer(g) * x", "~ ordered(f)", "~ pmin(x, 4) + pmax(x, z)", "~ dummy(f, 'a')", "~ dummy(f)", "~ I(f == 'a')", "~ x + offset(z)",
  "~ xm", "~ xm * f", "~ fm", "~ scale(xm) + fm", "~ ns(x, df = 3) + xm", "~ poly(x, 2) + fm", "~ I(-x) + I(x %% 2) + I((x + 1) / 2)",
  "~ factor(f, labels = c('B', 'A', 'C'))", "~ I(!l)", "~ I(x > 2 & z > 0)", "~ I(f %in% c('a', 'b'))")
dummy <- lme4::dummy
one <- function(text) {
  form <- as.formula(text)
  mf <- model.frame(form, d, drop.unused.levels = TRUE)
  X <- model.matrix(form, mf)
  tt <- terms(mf)
  later <- suppressWarnings(tryCatch({
    m2 <- model.frame(tt, new, xlev = .getXlevels(tt, mf))
    unname(model.matrix(tt, m2, contrasts.arg = attr(X, "contrasts")))
  }, error = function(e) NULL))
  attributes(later) <- list(dim = dim(later))
  list(formula = text, names = I(colnames(X)), assign = I(attr(X, "assign")), X = unname(as.matrix(X))[, , drop = FALSE], new = later)
}
clean <- function(case) { X <- case$X; attributes(X) <- list(dim = dim(X)); case$X <- X; case }
with_contrasts <- list(
  list(text = "~ f * g", contrasts = list(f = "contr.sum")), list(text = "~ f * x", contrasts = list(f = "contr.helmert", g = NULL)),
  list(text = "~ f + g", contrasts = list(f = "contr.sum", g = "contr.sum")), list(text = "~ h", contrasts = list(h = "contr.poly")),
  list(text = "~ o", contrasts = list(o = "contr.treatment")), list(text = "~ 0 + f", contrasts = list(f = "contr.sum")),
  list(text = "~ h * x", contrasts = list(h = cbind(c(1, 1, -1, -1), c(1, -1, 0, 0), c(0, 0, 1, -1)))), list(text = "~ h", contrasts = list(h = cbind(c(1, 1, -1, -1)))),
  list(text = "~ f", contrasts = list(f = cbind(ab = c(1, -1, 0), c = c(-0.5, -0.5, 1)))))
coded <- lapply(with_contrasts, function(case) {
  used <- Filter(Negate(is.null), case$contrasts)
  X <- model.matrix(as.formula(case$text), d, contrasts.arg = used)
  clean(list(formula = case$text, contrasts = lapply(used, function(m) if (is.matrix(m)) list(matrix = unname(m), names = colnames(m)) else m), names = I(colnames(X)), X = X))
})

control <- lmerControl(check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore", check.nlev.gtr.1 = "ignore", check.nobs.vs.rankZ = "ignore")
bars <- c(
  "y ~ x + (1 | site)", "y ~ x + (x | site)", "y ~ x + (0 + x | site)", "y ~ x + (f | item)", "y ~ x + (0 + f | item)", "y ~ x + (f * x | site)", "y ~ x + (x || site)", "y ~ x + (1 | region/site)",
  "y ~ x + (x | region/site)", "y ~ x + (1 | site) + (1 | item)", "y ~ x + (1 | item) + (1 | site)", "y ~ x + (1 | site) + (0 + x | site)", "y ~ x + (1 | site) + (1 | item) + (0 + x | item) + (z | site)",
  "y ~ x + (1 | region:site)", "y ~ x + (1 | site:region)", "y ~ x + (1 | region/site/item)", "y ~ x + (1 | s)", "y ~ x + (1 | l)", "y ~ x + (1 | u)", "y ~ x + (1 | s:item)",
  "y ~ x + (poly(x, 2) | site)", "y ~ x + (o | item)", "y ~ x + (l | item)", "y ~ x + (scale(x) | site)", "y ~ x + (1 | site) + (1 | region) + (1 | g)", "y ~ x + (1 | g) + (1 | region) + (1 | site)",
  "y ~ xm + (x | fm)", "y ~ f + (0 + f:x | g)", "y ~ f + (f | g)")
random <- lapply(bars, function(text) {
  lf <- suppressMessages(lFormula(as.formula(text), d, control = control))
  re <- lf$reTrms
  Z <- as.matrix(t(re$Zt))
  levels <- lapply(seq_along(re$cnms), function(i) levels(re$flist[[attr(re$flist, "assign")[i]]]))
  list(formula = text, groups = I(names(re$cnms)), effects = unname(lapply(re$cnms, I)), levels = lapply(levels, I), Z = unname(Z), n = nrow(lf$fr))
})
deficient <- c("y ~ x + I(2 * x) + z + (1 | site)", "y ~ f:g + (1 | site)", "y ~ x + f:x + z + I(x + z) + (1 | site)", "y ~ h + s + factor(s) + x + (1 | site)",
  "y ~ region + h + x + (1 | site)", "y ~ I(0 * x) + x + (1 | site)", "y ~ x + I(x + 1e-9 * z) + z + (1 | site)", "y ~ x + I(x + 1e-5 * z) + z + (1 | site)",
  "y ~ factor(k) * f * h + x + z + (1 | site)", "y ~ bs(x, df = 6, intercept = TRUE) + (1 | site)")
rank <- lapply(deficient, function(text) {
  lf <- suppressMessages(lFormula(as.formula(text), d, control = control))
  list(formula = text, names = I(colnames(lf$X)), dropped = I(as.character(names(attr(lf$X, "col.dropped")))))
})
out <- list(data = lapply(d, function(v) if (is.factor(v)) as.character(v) else v), new = lapply(new, function(v) if (is.factor(v)) as.character(v) else v),
  levels = list(f = levels(d$f), fm = levels(d$fm), g = levels(d$g), h = levels(d$h), o = levels(d$o), u = levels(d$u)),
  fixed = lapply(fixed, function(text) clean(one(text))), coded = coded, random = random, rank = rank)
writeLines(toJSON(out, digits = 15, auto_unbox = TRUE, na = "null", null = "null", matrix = "rowmajor"), "model_matrix.json")
