# Golden values of complete, no and partial pooling, by lme4 and stats; run in this folder: Rscript pooling.R
# (lme4 1.1-31). Writes pooling.json.
suppressMessages({library(lme4); library(jsonlite)})

data_of <- function(name, group) {
  path <- file.path("..", "..", "bayeslmm", "datasets", paste0(name, ".csv"))
  frame <- read.csv(path)
  for (column in group) frame[[column]] <- factor(frame[[column]])
  frame
}

tight <- function(formula, data, ...) {
  lmer(formula, data, control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-11, maxfun = 1e5),
                                            check.conv.grad = "ignore", check.conv.hess = "ignore"), ...)
}
tight_glmer <- function(formula, data, family) {
  glmer(formula, data, family, control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-11, maxfun = 1e5),
                                                      check.conv.grad = "ignore", check.conv.hess = "ignore"))
}
plain <- function(m) {m <- as.matrix(m); list(rows = I(rownames(m)), columns = I(colnames(m)), values = unname(m))}

each <- function(formula, data, group, by = lm, ...) {
  parts <- split(data, data[[group]])
  fits <- lapply(parts, function(part) by(formula, data = part, ...))
  coefs <- t(sapply(fits, function(fit) coef(fit)))
  if (length(coef(fits[[1]])) == 1) {coefs <- t(coefs); colnames(coefs) <- names(coef(fits[[1]]))}
  intervals <- lapply(fits, function(fit) suppressWarnings(unname(as.matrix(confint.lm(fit)))))
  list(coef = plain(coefs), n = sapply(parts, nrow), confint = intervals)
}
condvar <- function(fit, group) {
  frame <- ranef(fit, condVar = TRUE)[[group]]
  variances <- attr(frame, "postVar")
  plain(matrix(sapply(seq_len(ncol(frame)), function(k) variances[k, k, ]), nrow(frame), dimnames = dimnames(as.matrix(frame))))
}

result <- list()

# The lecture's data: lmList, lm, lmer
d <- data_of("sleepstudy183", "subject")
forms <- c("(1 | subject)", "(0 + days | subject)", "(1 + days | subject)")
result$sleepstudy183 <- list(
  none = each(reaction ~ days, d, "subject"),
  lmlist = plain(suppressWarnings(coef(lmList(reaction ~ days | subject, d, pool = FALSE)))),
  complete = list(coef = coef(lm(reaction ~ days, d)), confint = unname(confint(lm(reaction ~ days, d)))),
  partial = lapply(forms, function(random) {
    fit <- tight(as.formula(paste("reaction ~ 1 + days +", random)), d)
    list(random = random, coef = plain(coef(fit)$subject), condvar = condvar(fit, "subject"),
         sd = as.data.frame(VarCorr(fit))$sdcor)
  })
)
d <- data_of("sleepstudy", "Subject")
fit <- tight(Reaction ~ Days + (Days | Subject), d)
result$sleepstudy <- list(
  none = each(Reaction ~ Days, d, "Subject"), partial = plain(coef(fit)$Subject),
  sds = list(none = unname(apply(coef(lmList(Reaction ~ Days | Subject, d)), 2, sd)), partial = unname(apply(coef(fit)$Subject, 2, sd)))
)

# Counts: glm by brood, broods without a tick have no finite estimate
d <- data_of("grouseticks", c("BROOD"))
d$cHEIGHT <- (d$HEIGHT - mean(d$HEIGHT)) / 100
kept <- names(which(tapply(d$TICKS, d$BROOD, sum) > 0))
fits <- lapply(split(d, d$BROOD)[kept], function(part) glm(TICKS ~ 1, poisson, part, control = list(epsilon = 1e-14)))
whole <- glm(TICKS ~ 1, poisson, d)
fit <- tight_glmer(TICKS ~ 1 + (1 | BROOD), d, poisson)
result$grouseticks <- list(
  levels = I(kept), none = sapply(fits, coef), se = sapply(fits, function(f) sqrt(vcov(f)[1])), all_levels = I(levels(d$BROOD)),
  complete = list(coef = coef(whole), se = sqrt(vcov(whole)[1])), partial = plain(coef(fit)$BROOD), condvar = condvar(fit, "BROOD"),
  sd = as.data.frame(VarCorr(fit))$sdcor
)

# Nested: casks within batches
d <- data_of("Pastes", c("batch", "cask", "sample"))
fit <- tight(strength ~ 1 + (1 | batch / cask), d)
u <- ranef(fit)
both <- fixef(fit) + u$`cask:batch`[, 1] + u$batch[sub(".*:", "", rownames(u$`cask:batch`)), 1]
result$pastes <- list(
  levels = I(rownames(u$`cask:batch`)), partial = both, batches = plain(coef(fit)$batch),
  means = tapply(d$strength, interaction(d$cask, d$batch, sep = ":"), mean)[rownames(u$`cask:batch`)],
  batch_means = tapply(d$strength, d$batch, mean)
)

write(toJSON(result, digits = NA, auto_unbox = TRUE, na = "null"), "pooling.json")
