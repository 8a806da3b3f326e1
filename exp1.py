import cv2, numpy as np, sys, time
cv2.setNumThreads(1)
print(cv2.__version__, 'ipp', cv2.ipp.useIPP() if hasattr(cv2,'ipp') else None, 'opt', cv2.useOptimized())
def ref(src, M, W, H, border=cv2.BORDER_REFLECT):
    # M: dst idx -> src idx (index convention). float64
    ys,xs=np.mgrid[0:H,0:W].astype(float)
    sx=M[0,0]*xs+M[0,1]*ys+M[0,2]; sy=M[1,0]*xs+M[1,1]*ys+M[1,2]
    return refpos(src,sx,sy)
def refl(i,n):
    i=np.mod(i,2*n); return np.where(i<n,i,2*n-1-i)
def refpos(src,sx,sy):
    h,w=src.shape[:2]
    x0=np.floor(sx).astype(int); y0=np.floor(sy).astype(int); fx=(sx-x0)[...,None]; fy=(sy-y0)[...,None]
    g=lambda y,x: src[refl(y,h),refl(x,w)].astype(float)
    return (g(y0,x0)*(1-fx)+g(y0,x0+1)*fx)*(1-fy)+(g(y0+1,x0)*(1-fx)+g(y0+1,x0+1)*fx)*fy
rng=np.random.default_rng(0)
src=rng.integers(0,256,(300,310,3)).astype(np.uint8)
ramp=np.broadcast_to((np.arange(310)*255/309)[None,:,None],(300,310,3)).astype(np.uint8).copy()
th=0.3
M=np.array([[np.cos(th)*1.1,-np.sin(th),80.3],[np.sin(th),np.cos(th)*1.05,-10.7]])
W=H=224
import hashlib
def bench(f,n=300):
    f();best=1e9
    for _ in range(5):
        t=time.perf_counter()
        for _ in range(n//5): f()
        best=min(best,(time.perf_counter()-t)/(n//5))
    return best*1e6
dst=np.empty((H,W,3),np.uint8)
hints=[None]+([getattr(cv2,a) for a in ('ALGO_HINT_ACCURATE','ALGO_HINT_APPROX') if hasattr(cv2,a)])
for name,b in (('reflect',cv2.BORDER_REFLECT),('const',cv2.BORDER_CONSTANT),('repl',cv2.BORDER_REPLICATE)):
  for flags,fn in ((cv2.INTER_LINEAR,'lin'),):
   for hint in hints:
    kw={} if hint is None else {'hint':hint}
    f=lambda: cv2.warpAffine(src,M,(W,H),dst,flags|cv2.WARP_INVERSE_MAP,b,0,**kw)
    try: us=bench(f)
    except Exception as e: print(name,fn,hint,repr(e)[:200]); continue
    r=ref(src,M,W,H)
    e=np.abs(dst-r) if name=='reflect' else np.zeros(1)
    print('warpAffine',name,fn,hint,'%.0f us'%us,'max err %.2f mean %.3f'%(e.max(),e.mean()),hashlib.md5(dst).hexdigest()[:8])
ys,xs=np.mgrid[0:H,0:W].astype(float)
mx=(M[0,0]*xs+M[0,1]*ys+M[0,2]).astype(np.float32); my=(M[1,0]*xs+M[1,1]*ys+M[1,2]).astype(np.float32)
m1,m2=cv2.convertMaps(mx,my,cv2.CV_16SC2)
r=refpos(src,mx.astype(float),my.astype(float))
mxy=np.dstack([mx,my]).copy()
for b,name in ((cv2.BORDER_REFLECT,'reflect'),(cv2.BORDER_CONSTANT,'const'),(cv2.BORDER_WRAP,'wrap')):
  for nm,a,c in (('32FC1',mx,my),('32FC2',mxy,None),('16SC2',m1,m2)):
   for hint in hints:
    kw={} if hint is None else {'hint':hint}
    f=lambda: cv2.remap(src,a,c,cv2.INTER_LINEAR,dst,b,0,**kw)
    try: us=bench(f)
    except Exception as e: print(name,nm,hint,repr(e)[:100]);continue
    e=np.abs(dst-r) if name=='reflect' else np.zeros(1)
    print('remap',name,nm,hint,'%.0f us'%us,'max err %.2f mean %.3f'%(e.max(),e.mean()),hashlib.md5(dst).hexdigest()[:8])
print('convertMaps %.0f'%bench(lambda: cv2.convertMaps(mx,my,cv2.CV_16SC2,m1,m2)))
