import {LineWriter} from './dist/api/line-writer.js';
const n=200, v=Float32Array.from({length:n},()=>-Math.exp(Math.random()*14-12)), t=Uint32Array.from({length:n},()=>Math.floor(Math.random()*30000));
const w=new LineWriter(1<<20);
for(const [name,f] of [['figures',()=>w.figures(v)],['integers',()=>w.integers(t)]]){
 for(let i=0;i<5000;i++){f(); if(w.length>900000)w.take();}
 let b=0;w.take();const s=performance.now();for(let i=0;i<20000;i++){const l=w.length;f();b+=w.length-l;if(w.length>900000)w.take();}
 const d=(performance.now()-s)/1000;console.log(name,(b/1e6/d).toFixed(0),'MB/s',(20000*n/d/1e6).toFixed(1),'M/s');
}
